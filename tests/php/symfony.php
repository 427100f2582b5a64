<?php
// Logs in as Symfony's firewall does, by a token in a native session: ?do=in&user=mia@example.org, out, and nothing to
// see who it is.
namespace App\Entity {
    class User {
        private ?int $id = 7;
        private array $roles = ['ROLE_ADMIN'];
        private ?string $password = '$2y$13$secret';
        public function __construct(private ?string $email) {}
        public function email(): ?string { return $this->email; }
    }
}
namespace Symfony\Component\Security {
    abstract class AbstractToken {
        public function __construct(public ?\App\Entity\User $user) {}
        public function __serialize(): array { return [$this->user, true, null, [], ['ROLE_ADMIN']]; }
        public function __unserialize(array $data): void { $this->user = $data[0]; }
    }
    class PostAuthenticationToken extends AbstractToken {
        public function __serialize(): array { return ['main', parent::__serialize()]; }
        public function __unserialize(array $data): void { parent::__unserialize($data[1]); }
    }
}
namespace {
    use Symfony\Component\Security\PostAuthenticationToken;

    // As RedisSessionHandler keeps them: plain SETEX under a prefix of its own.
    if (str_starts_with($_SERVER['STORE'] ?? '', 'redis:')) {
        [, $host, $port] = explode(':', $_SERVER['STORE']);
        $redis = new Redis();
        $redis->connect($host, (int) $port);
        session_set_save_handler(new class($redis) implements SessionHandlerInterface {
            public function __construct(private Redis $redis) {}
            public function open(string $path, string $name): bool { return true; }
            public function close(): bool { return true; }
            public function read(string $id): string|false { return $this->redis->get('sf_s' . $id) ?: ''; }
            public function write(string $id, string $data): bool { return (bool) $this->redis->setex('sf_s' . $id, 1440, $data); }
            public function destroy(string $id): bool { $this->redis->unlink('sf_s' . $id); return true; }
            public function gc(int $lifetime): int|false { return 0; }
        });
    }
    session_start();
    switch ($_GET['do'] ?? '') {
        case 'in':
            session_regenerate_id(true);
            $token = new PostAuthenticationToken(new App\Entity\User($_GET['user']));
            $_SESSION['_sf2_attributes'] = ['_security_main' => serialize($token), 'roles' => ['admin', 'editor']];
            $_SESSION['_sf2_meta'] = ['u' => time(), 'c' => time(), 'l' => 0];
            break;
        case 'out':
            unset($_SESSION['_sf2_attributes']['_security_main']);
            session_regenerate_id(true);
            break;
    }
    $token = $_SESSION['_sf2_attributes']['_security_main'] ?? null;
    header('Content-Type: application/json');
    echo json_encode([
        'id' => session_id(),
        'user' => $token ? unserialize($token)->user->email() : null,
        'told' => array_filter($_SERVER, fn ($name) => str_starts_with($name, 'HTTP_X_STRANGLER'), ARRAY_FILTER_USE_KEY),
    ]);
}
