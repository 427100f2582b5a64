<?php
// Logs in as Laravel does, by its encrypted cookie, its session stores and the guard's key: ?do=in&user=7, out, and
// nothing to see who it is. The application's settings are the upstream's params.
require __DIR__ . '/laravel_encrypter.php';

class Store {
    private ?Redis $redis = null;
    public function __construct(private Encrypter $encrypter) {
        if (str_starts_with($_SERVER['STORE'], 'redis:')) {
            [, $host, $port] = explode(':', $_SERVER['STORE']);
            $this->redis = new Redis();
            $this->redis->connect($host, (int) $port);
        }
    }
    public function read(string $id): array {
        $data = $this->redis ? $this->redis->get($_SERVER['PREFIX'] . $id) : @file_get_contents("{$_SERVER['STORE']}/$id");
        if ($data === false) return [];
        if ($this->redis) $data = unserialize($data);
        if ($_SERVER['ENCRYPTED']) $data = unserialize($this->encrypter->decrypt($data));
        return $_SERVER['SERIALIZATION'] === 'json' ? json_decode($data, true) : unserialize($data);
    }
    public function write(string $id, array $attributes): void {
        $data = $_SERVER['SERIALIZATION'] === 'json' ? json_encode($attributes) : serialize($attributes);
        if ($_SERVER['ENCRYPTED']) $data = $this->encrypter->encrypt(serialize($data));
        $this->redis ? $this->redis->setex($_SERVER['PREFIX'] . $id, 7200, serialize($data)) : file_put_contents("{$_SERVER['STORE']}/$id", $data, LOCK_EX);
    }
    public function destroy(string $id): void {
        $this->redis ? $this->redis->del($_SERVER['PREFIX'] . $id) : @unlink("{$_SERVER['STORE']}/$id");
    }
}

$key = base64_decode(substr($_SERVER['APP_KEY'], 7));
$encrypter = new Encrypter($key, $_SERVER['CIPHER']);
$store = new Store($encrypter);
$user = 'login_web_' . sha1('Illuminate\Auth\SessionGuard');
$mark = hash_hmac('sha1', 'shop-sessionv2', $key) . '|';
$cookie = isset($_COOKIE['shop-session']) ? $encrypter->decrypt($_COOKIE['shop-session']) : false;
$id = $cookie && str_starts_with($cookie, $mark) ? substr($cookie, 41) : bin2hex(random_bytes(20));
$attributes = $store->read($id) + ['_token' => bin2hex(random_bytes(20)), '_flash' => ['old' => [], 'new' => []]];
switch ($_GET['do'] ?? '') {
    case 'in':
        $store->destroy($id);
        $id = bin2hex(random_bytes(20));
        $attributes = [$user => is_numeric($_GET['user']) ? (int) $_GET['user'] : $_GET['user'], 'roles' => ['admin', 'editor']] + $attributes;
        break;
    case 'out':
        $store->destroy($id);
        $id = bin2hex(random_bytes(20));
        $attributes = ['_token' => bin2hex(random_bytes(20))];
        break;
}
$store->write($id, $attributes);
setcookie('shop-session', $encrypter->encrypt($mark . $id), time() + 7200, '/', '', false, true);
header('Content-Type: application/json');
echo json_encode([
    'id' => $id,
    'user' => $attributes[$user] ?? null,
    'told' => array_filter($_SERVER, fn ($name) => str_starts_with($name, 'HTTP_X_STRANGLER'), ARRAY_FILTER_USE_KEY),
]);
