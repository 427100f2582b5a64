<?php
declare(strict_types=1);

// A stand-in for api.weixin.qq.com, for tests: php -S 127.0.0.1:PORT examples/shop/fake_wechat.php
//
// `good-NAME` is the code of the user with the openid `openid-NAME`; the other codes name WeChat's refusals.
// Like the real one it always answers 200, as text/plain.

header('Content-Type: text/plain');
if (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) !== '/sns/jscode2session') {
    http_response_code(404);
    return;
}

$refuse = fn (int $code, string $message) => ['errcode' => $code, 'errmsg' => $message];
$code = $_GET['js_code'] ?? '';
echo json_encode(match (true) {
    ($_GET['grant_type'] ?? '') !== 'authorization_code' => $refuse(40002, 'invalid grant_type'),
    ($_GET['appid'] ?? '') === '' => $refuse(41002, 'appid missing'),
    ($_GET['secret'] ?? '') === '' => $refuse(41004, 'appsecret missing'),
    preg_match('/^good-([a-z0-9]+)$/D', $code, $found) === 1
        => ['openid' => "openid-$found[1]", 'session_key' => base64_encode(str_repeat('k', 16))],
    $code === 'used' => $refuse(40163, 'code been used'),
    $code === 'risky' => $refuse(40226, 'code blocked'),
    $code === 'busy' => $refuse(-1, 'system error'),
    default => $refuse(40029, 'invalid code'),
});
