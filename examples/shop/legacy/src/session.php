<?php
declare(strict_types=1);

namespace Shop;

/**
 * The login session: a native PHP session, in files or in Redis.
 *
 * Only a login and the HTML pages begin one. The API resumes the one whose id it was given, so that an
 * anonymous call neither creates a session nor gets a cookie.
 */
final class Session
{
    private const NAME = 'PHPSESSID';
    private const LIFETIME = 86400;

    /** Begins a session, or goes on with the visitor's own. */
    public static function begin(): void
    {
        if (session_status() === PHP_SESSION_ACTIVE) {
            return;
        }
        self::configure();
        session_start();
    }

    /** The user whose session the caller presents, if any. */
    public static function userId(): ?int
    {
        $id = self::presented();
        if ($id === null) {
            return null;
        }
        if (session_status() !== PHP_SESSION_ACTIVE) {
            self::configure();
            ini_set('session.use_cookies', '0');
            session_id($id);
            session_start();
        }
        $user = $_SESSION['user_id'] ?? null;
        if ($_SESSION === [] && session_id() !== $id) {
            // An id nobody issued: strict mode made a new, empty session, which nobody will ask for.
            session_destroy();
        } else {
            session_write_close();
        }
        return is_int($user) ? $user : null;
    }

    /** Marks the session as this user's, under a new id: one that was known before the login is worth nothing. */
    public static function login(int $userId): string
    {
        self::begin();
        session_regenerate_id(true);
        $_SESSION['user_id'] = $userId;
        $id = session_id();
        session_write_close();
        return $id;
    }

    public static function logout(): void
    {
        $id = self::presented();
        if ($id !== null) {
            self::configure();
            ini_set('session.use_cookies', '0');
            session_id($id);
            session_start();
            session_destroy();
        }
        setcookie(self::NAME, '', ['path' => '/', 'httponly' => true, 'samesite' => 'Lax']);
    }

    /** The id a caller names: mini-programs keep no cookies and send it in a header. */
    private static function presented(): ?string
    {
        $header = $_SERVER['HTTP_AUTHORIZATION'] ?? $_SERVER['HTTP_X_TOKEN'] ?? null;
        $id = $header === null ? ($_COOKIE[self::NAME] ?? '') : preg_replace('/^Bearer /', '', $header);
        return is_string($id) && preg_match('/^[A-Za-z0-9,-]{22,250}$/D', $id) === 1 ? $id : null;
    }

    private static function configure(): void
    {
        $store = setting('SESSION_STORE');
        if (str_starts_with($store, 'redis')) {
            ini_set('session.save_handler', 'redis');
            ini_set('session.save_path', self::redisPath($store));
        } else {
            ini_set('session.save_handler', 'files');
            $dir = str_starts_with($store, 'php-files:') ? substr($store, strlen('php-files:')) : state_dir('sessions');
            ini_set('session.save_path', $dir);
            ini_set('session.gc_probability', '1');
        }
        ini_set('session.name', self::NAME);
        ini_set('session.serialize_handler', 'php');
        ini_set('session.use_strict_mode', '1');
        ini_set('session.gc_maxlifetime', (string) self::LIFETIME);
        ini_set('session.cookie_httponly', '1');
        ini_set('session.cookie_samesite', 'Lax');
        session_cache_limiter('');
    }

    /** `redis://:password@host:port/database` in the words of phpredis. */
    private static function redisPath(string $url): string
    {
        $at = parse_url($url);
        $query = array_filter([
            'database' => ltrim($at['path'] ?? '', '/'),
            'auth' => rawurldecode($at['pass'] ?? ''),
        ]);
        return 'tcp://' . ($at['host'] ?? '127.0.0.1') . ':' . ($at['port'] ?? 6379)
            . ($query === [] ? '' : '?' . http_build_query($query));
    }
}
