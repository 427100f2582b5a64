<?php
// Makes the vectors beside it, `php generate.php`: public keys, and one token for each algorithm, signed by
// OpenSSL, libsodium and PHP's own hash_hmac. The private keys are thrown away.
declare(strict_types=1);

$folder = __DIR__;
$secret = 'a secret of more than sixty-four bytes, so that it is long enough for HS512, too';

function encode(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

/** The two numbers of an ECDSA signature, each of $size bytes. */
function fixed(string $der, int $size): string
{
    $at = ord($der[1]) & 0x80 ? 3 : 2;
    $parts = '';
    for ($n = 0; $n < 2; $n++) {
        $length = ord($der[$at + 1]);
        $parts .= str_pad(ltrim(substr($der, $at + 2, $length), "\0"), $size, "\0", STR_PAD_LEFT);
        $at += 2 + $length;
    }
    return $parts;
}

function pss(OpenSSLAsymmetricKey $key, string $message, string $hash): string
{
    $file = tempnam(sys_get_temp_dir(), 'key');
    openssl_pkey_export_to_file($key, $file);
    $options = '-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest';
    $process = proc_open("openssl dgst -$hash -sign $file $options", [['pipe', 'r'], ['pipe', 'w']], $pipes);
    fwrite($pipes[0], $message);
    fclose($pipes[0]);
    $signature = stream_get_contents($pipes[1]);
    proc_close($process);
    unlink($file);
    return $signature;
}

$keys = [
    'rsa' => openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_RSA, 'private_key_bits' => 2048]),
    'p256' => openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_EC, 'curve_name' => 'prime256v1']),
    'p384' => openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_EC, 'curve_name' => 'secp384r1']),
];
foreach ($keys as $name => $key) {
    file_put_contents("$folder/$name.pem", openssl_pkey_get_details($key)['key']);
}
$pair = sodium_crypto_sign_keypair();
$spki = hex2bin('302a300506032b6570032100') . sodium_crypto_sign_publickey($pair);
$pem = "-----BEGIN PUBLIC KEY-----\n" . base64_encode($spki) . "\n-----END PUBLIC KEY-----\n";
file_put_contents("$folder/ed25519.pem", $pem);
file_put_contents("$folder/secret", $secret);

$openssl = function (string $key, int $hash) use ($keys): callable {
    return function (string $message) use ($keys, $key, $hash): string {
        openssl_sign($message, $signature, $keys[$key], $hash);
        return $signature;
    };
};
$signers = [
    'RS256' => $openssl('rsa', OPENSSL_ALGO_SHA256),
    'RS384' => $openssl('rsa', OPENSSL_ALGO_SHA384),
    'RS512' => $openssl('rsa', OPENSSL_ALGO_SHA512),
    'PS256' => fn(string $message) => pss($keys['rsa'], $message, 'sha256'),
    'PS384' => fn(string $message) => pss($keys['rsa'], $message, 'sha384'),
    'PS512' => fn(string $message) => pss($keys['rsa'], $message, 'sha512'),
    'ES256' => fn(string $message) => fixed($openssl('p256', OPENSSL_ALGO_SHA256)($message), 32),
    'ES384' => fn(string $message) => fixed($openssl('p384', OPENSSL_ALGO_SHA384)($message), 48),
    'EdDSA' => fn(string $message) => sodium_crypto_sign_detached($message, sodium_crypto_sign_secretkey($pair)),
    'HS256' => fn(string $message) => hash_hmac('sha256', $message, $secret, true),
    'HS384' => fn(string $message) => hash_hmac('sha384', $message, $secret, true),
    'HS512' => fn(string $message) => hash_hmac('sha512', $message, $secret, true),
];
$tokens = '';
foreach ($signers as $algorithm => $sign) {
    $header = json_encode(['typ' => 'JWT', 'alg' => $algorithm, 'kid' => 'key']);
    // Until 2100.
    $claims = json_encode(['sub' => '7', 'exp' => 4102444800, 'roles' => ['admin', 'editor']]);
    $message = encode($header) . '.' . encode($claims);
    $tokens .= "$algorithm $message." . encode($sign($message)) . "\n";
}
file_put_contents("$folder/tokens", $tokens);
