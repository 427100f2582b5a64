<?php
declare(strict_types=1);

namespace Shop;

use PDO;

/** The shop's database: the SQLite file by default, what DATABASE_URL names otherwise. */
final class Database
{
    private static ?self $shared = null;

    private function __construct(private readonly PDO $pdo)
    {
    }

    public static function get(): self
    {
        return self::$shared ??= self::open();
    }

    /** @return list<array<string, mixed>> */
    public function all(string $sql, array $params = []): array
    {
        return $this->run($sql, $params)->fetchAll();
    }

    /** @return array<string, mixed>|null */
    public function one(string $sql, array $params = []): ?array
    {
        return $this->run($sql, $params)->fetch() ?: null;
    }

    /** How many rows were changed. */
    public function change(string $sql, array $params = []): int
    {
        return $this->run($sql, $params)->rowCount();
    }

    public function lastId(): int
    {
        return (int) $this->pdo->lastInsertId();
    }

    /** Runs `$work` in a transaction: all of it, or, when it throws, nothing. */
    public function transaction(callable $work): mixed
    {
        $this->pdo->beginTransaction();
        try {
            $result = $work();
            $this->pdo->commit();
            return $result;
        } catch (\Throwable $error) {
            $this->pdo->rollBack();
            throw $error;
        }
    }

    private function run(string $sql, array $params): \PDOStatement
    {
        $statement = $this->pdo->prepare($sql);
        foreach ($params as $at => $value) {
            $statement->bindValue($at + 1, $value, is_int($value) ? PDO::PARAM_INT : PDO::PARAM_STR);
        }
        $statement->execute();
        return $statement;
    }

    private static function open(): self
    {
        $url = setting('DATABASE_URL');
        $pdo = $url === '' ? self::openSqlite() : self::openMysql($url);
        try {
            $pdo->query('SELECT version FROM shop_version')->fetchAll();
        } catch (\PDOException) {
            $url === '' ? self::setUpSqlite($pdo) : self::setUpMysql($pdo);
        }
        return new self($pdo);
    }

    private static function openSqlite(): PDO
    {
        $pdo = new PDO('sqlite:' . state_dir() . '/shop.sqlite', null, null, self::options() + [PDO::ATTR_TIMEOUT => 5]);
        $pdo->exec('PRAGMA foreign_keys = ON');
        $pdo->exec('PRAGMA synchronous = NORMAL');
        return $pdo;
    }

    private static function openMysql(string $url): PDO
    {
        $at = parse_url($url);
        if ($at === false || ($at['scheme'] ?? '') !== 'mysql') {
            throw new \RuntimeException('DATABASE_URL is not mysql://user:password@host:port/database');
        }
        parse_str($at['query'] ?? '', $query);
        $place = isset($query['socket'])
            ? "unix_socket={$query['socket']}"
            : 'host=' . ($at['host'] ?? '127.0.0.1') . ';port=' . ($at['port'] ?? 3306);
        $name = ltrim($at['path'] ?? '', '/');
        return new PDO(
            "mysql:$place;dbname=$name;charset=utf8mb4",
            rawurldecode($at['user'] ?? ''),
            rawurldecode($at['pass'] ?? ''),
            self::options(),
        );
    }

    private static function options(): array
    {
        return [
            PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
            PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
            PDO::ATTR_EMULATE_PREPARES => false,
        ];
    }

    /** The Rust side may be setting up at this moment: both take the same lock, the second finds it done. */
    private static function setUpSqlite(PDO $pdo): void
    {
        $lock = fopen(state_dir() . '/setup.lock', 'c');
        if ($lock === false || !flock($lock, LOCK_EX)) {
            throw new \RuntimeException('cannot lock setup.lock');
        }
        $pdo->exec('PRAGMA journal_mode = WAL');
        self::createAndFill($pdo);
        fclose($lock);
    }

    private static function setUpMysql(PDO $pdo): void
    {
        $pdo->query("SELECT GET_LOCK('shop_setup', 30)")->fetchAll();
        self::createAndFill($pdo);
        $pdo->query("SELECT RELEASE_LOCK('shop_setup')")->fetchAll();
    }

    private static function createAndFill(PDO $pdo): void
    {
        $run = function (string $file) use ($pdo): void {
            foreach (explode(";\n", file_get_contents(dirname(__DIR__, 2) . "/$file")) as $statement) {
                if (trim($statement) !== '') {
                    $pdo->exec($statement);
                }
            }
        };
        $run('schema.sql');
        $pdo->beginTransaction();
        if ($pdo->query('SELECT id FROM products LIMIT 1')->fetchAll() === []) {
            $run('seed.sql');
        }
        $pdo->commit();
        // Created last: it is what tells a newcomer that the rest is there.
        $pdo->exec('CREATE TABLE IF NOT EXISTS shop_version (version INTEGER NOT NULL)');
    }
}
