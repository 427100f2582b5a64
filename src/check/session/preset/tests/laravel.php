<?php
// Cookies and stored sessions as Laravel's Encrypter, CookieValuePrefix and session stores make them.
function encrypt(string $value, string $key, string $cipher): string {
    $iv = random_bytes(openssl_cipher_iv_length($cipher));
    $gcm = str_ends_with($cipher, 'gcm');
    $tag = '';
    $value = $gcm ? openssl_encrypt($value, $cipher, $key, 0, $iv, $tag) : openssl_encrypt($value, $cipher, $key, 0, $iv);
    [$iv, $tag] = [base64_encode($iv), base64_encode($tag)];
    $mac = $gcm ? '' : hash_hmac('sha256', $iv . $value, $key);
    return base64_encode(json_encode(compact('iv', 'value', 'mac', 'tag'), JSON_UNESCAPED_SLASHES));
}

$out = [];
foreach (['aes-128-cbc' => 16, 'aes-256-cbc' => 32, 'aes-128-gcm' => 16, 'aes-256-gcm' => 32] as $cipher => $bytes) {
    $key = random_bytes($bytes);
    $id = substr(bin2hex(random_bytes(20)), 0, 40);
    $cookie = encrypt(hash_hmac('sha1', 'shop-sessionv2', $key) . '|' . $id, $key, $cipher);
    $attributes = ['_token' => 'csrf', 'login_web_' . sha1('Illuminate\Auth\SessionGuard') => 42, '_flash' => ['old' => [], 'new' => []]];
    $data = serialize($attributes);
    $out[] = [
        'cipher' => $cipher, 'key' => 'base64:' . base64_encode($key), 'id' => $id, 'cookie' => $cookie,
        'redis' => serialize($data), 'file' => $data, 'json' => json_encode($attributes),
        'encrypted' => encrypt(serialize($data), $key, $cipher),
    ];
}
echo json_encode($out);
