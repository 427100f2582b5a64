<?php
declare(strict_types=1);

namespace Shop;

/**
 * The JSON API, as clients know it: `{"code": 0, "message": "ok", "data": …}`.
 *
 * The Rust side (examples/shop/*.rs) answers the same, byte for byte.
 */
final class Api
{
    private const ROUTES = [
        '/api/v1/products' => ['GET' => 'products'],
        '/api/v1/products/{id}' => ['GET' => 'product'],
        '/api/v1/orders' => ['GET' => 'orders', 'POST' => 'placeOrder'],
        '/api/v1/orders/{id}' => ['GET' => 'order'],
        '/api/v1/login' => ['POST' => 'login'],
        '/api/v1/logout' => ['POST' => 'logout'],
        '/api/v1/users/me' => ['GET' => 'me'],
        '/reports/sales' => ['GET' => 'sales'],
    ];

    public static function covers(string $path): bool
    {
        return str_starts_with($path, '/api/') || $path === '/reports/sales';
    }

    public static function answer(string $method, string $path): void
    {
        try {
            [$status, $data] = self::dispatch($method, $path);
            self::send($status, ['code' => 0, 'message' => 'ok', 'data' => $data]);
        } catch (Refused $refused) {
            self::send($refused->status(), ['code' => $refused->getCode(), 'message' => $refused->getMessage(), 'data' => null]);
        } catch (\Throwable $error) {
            error_log((string) $error);
            self::send(500, ['code' => 50010, 'message' => 'internal error', 'data' => null]);
        }
    }

    private static function dispatch(string $method, string $path): array
    {
        foreach (self::ROUTES as $pattern => $methods) {
            if (preg_match('#^' . str_replace('{id}', '([^/]+)', $pattern) . '$#D', $path, $found) !== 1) {
                continue;
            }
            $name = $methods[$method === 'HEAD' ? 'GET' : $method] ?? null;
            if ($name === null) {
                header('Allow: ' . implode(',', array_map(fn ($m) => $m === 'GET' ? 'GET,HEAD' : $m, array_keys($methods))));
                throw new Refused('method not allowed', 40510);
            }
            return self::$name(rawurldecode($found[1] ?? ''));
        }
        throw new Refused('not found', 40412);
    }

    private static function products(): array
    {
        $text = $_GET['q'] ?? '';
        return [200, find_products(
            is_string($text) ? $text : '',
            self::number('page', 1, 1_000_000),
            self::number('per_page', 20, 100),
        )];
    }

    private static function product(string $id): array
    {
        return [200, product(natural($id) ?? throw new Refused('product not found', 40410))];
    }

    private static function orders(): array
    {
        return [200, ['items' => orders_of(self::caller())]];
    }

    private static function order(string $id): array
    {
        $caller = self::caller();
        return [200, order(natural($id) ?? throw new Refused('order not found', 40411), $caller)];
    }

    private static function placeOrder(): array
    {
        $caller = self::caller();
        $items = self::body()['items'] ?? null;
        if (!is_array($items) || !array_is_list($items) || $items === [] || count($items) > 50) {
            throw new Refused('items: 1 to 50 are needed', 40011);
        }
        $quantities = [];
        foreach ($items as $item) {
            $id = is_array($item) ? $item['product_id'] ?? null : null;
            $quantity = is_array($item) ? $item['quantity'] ?? null : null;
            if (!is_int($id) || $id < 1 || $id > 999_999_999 || !is_int($quantity) || $quantity < 1 || $quantity > 99) {
                throw new Refused('items: each needs a product_id and a quantity from 1 to 99', 40012);
            }
            $quantities[$id] = ($quantities[$id] ?? 0) + $quantity;
        }
        return [201, order(place_order($caller, $quantities), $caller)];
    }

    private static function login(): array
    {
        $body = self::body();
        [$code, $email, $password] = [$body['code'] ?? null, $body['email'] ?? null, $body['password'] ?? null];
        if (is_string($code) && $code !== '') {
            $user = user_by_openid(wechat_openid($code));
        } elseif (is_string($email) && is_string($password)) {
            $user = user_by_password($email, $password);
        } else {
            throw new Refused('email and password, or code, are needed', 40013);
        }
        return [200, ['token' => Session::login($user['id']), 'user' => $user]];
    }

    private static function logout(): array
    {
        Session::logout();
        return [200, null];
    }

    private static function me(): array
    {
        return [200, user(self::caller())];
    }

    private static function sales(): array
    {
        return [200, sales_report()];
    }

    private static function caller(): int
    {
        return Session::userId() ?? throw new Refused('login required', 40110);
    }

    /** @return array<mixed> */
    private static function body(): array
    {
        $body = json_decode((string) file_get_contents('php://input'), true, 128);
        return is_array($body) ? $body : throw new Refused('a JSON object is needed', 40010);
    }

    private static function number(string $name, int $default, int $max): int
    {
        $text = $_GET[$name] ?? null;
        if (!is_string($text)) {
            return $default;
        }
        $number = natural($text);
        return $number !== null && $number <= $max ? $number : throw new Refused("$name: 1 to $max", 40014);
    }

    private static function send(int $status, array $envelope): void
    {
        http_response_code($status);
        header('Content-Type: application/json');
        header('Cache-Control: no-store');
        echo json_encode(
            $envelope,
            JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_LINE_TERMINATORS | JSON_THROW_ON_ERROR,
        );
    }
}

/** A positive number in plain digits, as in ids and pages. */
function natural(string $text): ?int
{
    return preg_match('/^[1-9][0-9]{0,8}$/D', $text) === 1 ? (int) $text : null;
}
