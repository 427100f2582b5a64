<?php
// What Laravel's Encrypter makes and opens: JSON in Base64, with a mac or, in GCM, a tag.
final class Encrypter {
    private bool $gcm;
    public function __construct(private string $key, private string $cipher) {
        $this->gcm = str_ends_with($cipher, 'gcm');
    }
    public function encrypt(string $value): string {
        $iv = random_bytes(openssl_cipher_iv_length($this->cipher));
        $tag = '';
        $value = $this->gcm ? openssl_encrypt($value, $this->cipher, $this->key, 0, $iv, $tag) : openssl_encrypt($value, $this->cipher, $this->key, 0, $iv);
        [$iv, $tag] = [base64_encode($iv), base64_encode($tag)];
        $mac = $this->gcm ? '' : $this->mac($iv . $value);
        return base64_encode(json_encode(compact('iv', 'value', 'mac', 'tag'), JSON_UNESCAPED_SLASHES));
    }
    public function decrypt(string $payload): string|false {
        $payload = json_decode(base64_decode($payload), true);
        $known = $payload && ($this->gcm || hash_equals($this->mac($payload['iv'] . $payload['value']), $payload['mac']));
        return $known ? openssl_decrypt($payload['value'], $this->cipher, $this->key, 0, base64_decode($payload['iv']), base64_decode($payload['tag'])) : false;
    }
    private function mac(string $text): string {
        return hash_hmac('sha256', $text, $this->key);
    }
}
