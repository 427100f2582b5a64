<?php
// What an application may keep in its session beside arrays.
error_reporting(0);
ini_set('serialize_precision', '17');
ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');
ini_set('memory_limit', '512M');

class Person {
    public $id;
    protected $name;
    private $roles;
    public function __construct($id, $name, $roles) { [$this->id, $this->name, $this->roles] = [$id, $name, $roles]; }
}
class Admin extends Person {
    private $level = 3;
}
class Keeper {
    public $kept = [];
    public function __serialize(): array { return [$this->kept, 'and', 7 => 'more']; }
    public function __unserialize(array $data): void { $this->kept = $data; }
}
class Own implements Serializable {
    public $text = 'o|w;n"}';
    public function serialize() { return $this->text; }
    public function unserialize($data) { $this->text = $data; }
}
enum Suit: string { case Hearts = 'H'; case Spades = 'S'; }

/** Nothing is stored: the tests hand the bytes over themselves. */
class Nowhere implements SessionHandlerInterface {
    public function open($path, $name): bool { return true; }
    public function close(): bool { return true; }
    public function read($id): string { return ''; }
    public function write($id, $data): bool { return true; }
    public function destroy($id): bool { return true; }
    public function gc($max): int|false { return 0; }
}
session_set_save_handler(new Nowhere(), false);

function encode_session(string $format, array $session): string|false {
    if ($format === 'json') return json_encode($session);
    ini_set('session.serialize_handler', $format);
    session_start();
    $_SESSION = $session;
    $bytes = session_encode();
    session_abort();
    return $bytes;
}

function decode_session(string $format, string $bytes): ?array {
    if ($format === 'json') {
        $session = $bytes === '' ? [] : json_decode($bytes, true);
        return is_array($session) ? $session : null;
    }
    ini_set('session.serialize_handler', $format);
    session_start();
    $read = session_decode($bytes);
    $session = $_SESSION;
    session_abort();
    // One that is no array PHP takes as well: it is no session in which anything is set.
    return $read && is_array($session) ? $session : null;
}
