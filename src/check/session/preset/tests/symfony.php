<?php
// Tokens that write themselves as Symfony's do: UsernamePasswordToken and PostAuthenticationToken.
namespace App\Entity {
    class User {
        private ?int $id = 7;
        private ?string $email = 'ann@example.org';
        private array $roles = ['ROLE_ADMIN'];
        private ?string $password = '$2y$13$secret';
    }
}
namespace Symfony\Component\Security {
    abstract class AbstractToken {
        public function __serialize(): array { return [new \App\Entity\User(), true, null, [], ['ROLE_ADMIN']]; }
        public function __unserialize(array $data): void {}
    }
    class UsernamePasswordToken extends AbstractToken {
        public function __serialize(): array { return [null, 'main', parent::__serialize()]; }
    }
    class PostAuthenticationToken extends AbstractToken {
        public function __serialize(): array { return ['main', parent::__serialize()]; }
    }
    foreach ([new UsernamePasswordToken(), new PostAuthenticationToken()] as $token) {
        $session = ['_sf2_attributes' => ['_security_main' => serialize($token), 'cart' => ['items' => 3]]];
        $out[] = base64_encode(serialize($session));
    }
    echo json_encode($out);
}
