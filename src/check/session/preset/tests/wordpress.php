<?php
// A cookie by WordPress's own wp_generate_auth_cookie, of a user who is in no database.
define('ABSPATH', '/usr/share/wordpress/');
define('LOGGED_IN_KEY', 'key of the site');
define('LOGGED_IN_SALT', 'salt of the site');
function apply_filters($name, $value) { return $value; }
function __($text) { return $text; }
function add_action() {}
function get_userdata($id) { return (object) ['user_login' => 'ann', 'user_pass' => $GLOBALS['hash']]; }
class WP_Session_Tokens {}
require ABSPATH . 'wp-includes/pluggable.php';
$token = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ';
foreach (['$P$Bsalt1234hashhashhashhashhash00', '$2y$10$abcdefghijklmnopqrstuv'] as $hash) {
    $out[] = ['hash' => $hash, 'cookie' => wp_generate_auth_cookie(1, 2000000000, 'logged_in', $token)];
}
$verifier = hash('sha256', $token);
$tokens = [serialize([$verifier => ['expiration' => 2000000000, 'ip' => '127.0.0.1', 'ua' => 'x', 'login' => 1]]), serialize([$verifier => 2000000000])];
echo json_encode(['cookies' => $out, 'tokens' => array_map('base64_encode', $tokens)]);
