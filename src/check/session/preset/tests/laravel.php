<?php
// Cookies and stored sessions as Laravel's Encrypter, CookieValuePrefix and session stores make them.
require __DIR__ . '/../../../../../tests/php/laravel_encrypter.php';

$out = [];
foreach (['aes-128-cbc' => 16, 'aes-256-cbc' => 32, 'aes-128-gcm' => 16, 'aes-256-gcm' => 32] as $cipher => $bytes) {
    $key = random_bytes($bytes);
    $encrypter = new Encrypter($key, $cipher);
    $id = substr(bin2hex(random_bytes(20)), 0, 40);
    $cookie = $encrypter->encrypt(hash_hmac('sha1', 'shop-sessionv2', $key) . '|' . $id);
    $attributes = ['_token' => 'csrf', 'login_web_' . sha1('Illuminate\Auth\SessionGuard') => 42, '_flash' => ['old' => [], 'new' => []]];
    $data = serialize($attributes);
    $out[] = [
        'cipher' => $cipher, 'key' => 'base64:' . base64_encode($key), 'id' => $id, 'cookie' => $cookie,
        'redis' => serialize($data), 'file' => $data, 'json' => json_encode($attributes),
        'encrypted' => $encrypter->encrypt(serialize($data)),
    ];
}
echo json_encode($out);
