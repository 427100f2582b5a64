<?php
declare(strict_types=1);

namespace Shop;

/** What the shop can do: used by the API and by the HTML pages alike. */

/** A refusal that the caller may read; its status is `code / 100`, as in the gateway's own answers. */
final class Refused extends \RuntimeException
{
    public function status(): int
    {
        return intdiv($this->getCode(), 100);
    }
}

const PRODUCT = 'id, sku, name, description, price_cents, stock, picture';

/** @return array{items: list<array<string, mixed>>, page: int, per_page: int, total: int} */
function find_products(string $text, int $page, int $per_page): array
{
    $pattern = '%' . preg_replace('/[!%_]/', '!$0', $text) . '%';
    $database = Database::get();
    $total = $database->one("SELECT COUNT(*) AS n FROM products WHERE name LIKE ? ESCAPE '!'", [$pattern]);
    $items = $database->all(
        'SELECT ' . PRODUCT . " FROM products WHERE name LIKE ? ESCAPE '!' ORDER BY id LIMIT ? OFFSET ?",
        [$pattern, $per_page, ($page - 1) * $per_page],
    );
    return ['items' => $items, 'page' => $page, 'per_page' => $per_page, 'total' => $total['n']];
}

/** @return array<string, mixed> */
function product(int $id): array
{
    return Database::get()->one('SELECT ' . PRODUCT . ' FROM products WHERE id = ?', [$id])
        ?? throw new Refused('product not found', 40410);
}

const USER = 'id, name, email, created_at';

/** @return array<string, mixed> */
function user(int $id): array
{
    return Database::get()->one('SELECT ' . USER . ' FROM users WHERE id = ?', [$id])
        ?? throw new Refused('login required', 40110);
}

/** The user with this email and password. An unknown email costs as much time as a wrong password. */
function user_by_password(string $email, string $password): array
{
    $nobody = '$2y$10$6qZNhsFZ7uYRll4qsW1muu3VqGc5gsRanVZs8L0D5c9A3yl/S1uYO';
    $found = Database::get()->one('SELECT id, password_hash FROM users WHERE email = ?', [strtolower($email)]);
    $good = password_verify($password, $found['password_hash'] ?? $nobody);
    if ($found === null || !$good) {
        throw new Refused('wrong email or password', 40111);
    }
    return user($found['id']);
}

/** The user with this WeChat openid; the first login creates one. */
function user_by_openid(string $openid): array
{
    $database = Database::get();
    $find = fn (): ?array => $database->one('SELECT ' . USER . ' FROM users WHERE wechat_openid = ?', [$openid]);
    $found = $find();
    if ($found !== null) {
        return $found;
    }
    try {
        $database->change('INSERT INTO users (name, wechat_openid, created_at) VALUES (?, ?, ?)', ['WeChat user', $openid, now()]);
    } catch (\PDOException $error) {
        // Two first logins at once: the other one has created the user.
        return $find() ?? throw $error;
    }
    return $find();
}

/** @return list<array<string, mixed>> */
function orders_of(int $user_id): array
{
    return Database::get()->all(
        'SELECT id, status, total_cents, created_at,'
        . ' (SELECT COUNT(*) FROM order_items WHERE order_id = orders.id) AS item_count'
        . ' FROM orders WHERE user_id = ? ORDER BY id DESC LIMIT 50',
        [$user_id],
    );
}

/** One order with its lines; somebody else's is as absent as one that never was. */
function order(int $id, int $user_id): array
{
    $order = Database::get()->one(
        'SELECT id, status, total_cents, created_at FROM orders WHERE id = ? AND user_id = ?',
        [$id, $user_id],
    ) ?? throw new Refused('order not found', 40411);
    $order['items'] = Database::get()->all(
        'SELECT i.product_id, p.name, i.quantity, i.price_cents FROM order_items i'
        . ' JOIN products p ON p.id = i.product_id WHERE i.order_id = ? ORDER BY i.product_id',
        [$id],
    );
    return $order;
}

/**
 * Buys what is in `$quantities` (product id => quantity): all of it or nothing.
 *
 * @param array<int, int> $quantities
 */
function place_order(int $user_id, array $quantities): int
{
    // In the order of the products, so that two buyers never wait for each other in a circle.
    ksort($quantities);
    return Database::get()->transaction(function () use ($user_id, $quantities): int {
        $database = Database::get();
        $total = 0;
        $lines = [];
        foreach ($quantities as $product_id => $quantity) {
            // The write comes first: it takes the lock that makes the read below final.
            $taken = $database->change(
                'UPDATE products SET stock = stock - ? WHERE id = ? AND stock >= ?',
                [$quantity, $product_id, $quantity],
            );
            $product = product($product_id);
            if ($taken === 0) {
                throw new Refused("out of stock: {$product['name']}", 40910);
            }
            $total += $product['price_cents'] * $quantity;
            $lines[] = [$product_id, $quantity, $product['price_cents']];
        }
        $database->change(
            "INSERT INTO orders (user_id, status, total_cents, created_at) VALUES (?, 'paid', ?, ?)",
            [$user_id, $total, now()],
        );
        $order_id = $database->lastId();
        foreach ($lines as [$product_id, $quantity, $price]) {
            $database->change(
                'INSERT INTO order_items (order_id, product_id, quantity, price_cents) VALUES (?, ?, ?, ?)',
                [$order_id, $product_id, $quantity, $price],
            );
        }
        return $order_id;
    });
}
