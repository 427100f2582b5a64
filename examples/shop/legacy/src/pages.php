<?php
declare(strict_types=1);

namespace Shop;

/**
 * The HTML pages: plain forms and native sessions. They stay with PHP.
 *
 * The forms carry no token against forgery: the session cookie is SameSite=Lax, so that another site's
 * form is sent without it.
 */
final class Pages
{
    private const PICTURES = [IMAGETYPE_PNG => 'png', IMAGETYPE_JPEG => 'jpg', IMAGETYPE_GIF => 'gif', IMAGETYPE_WEBP => 'webp'];
    private const PICTURE_BYTES = 2 << 20;

    public static function answer(string $method, string $path): void
    {
        $method = $method === 'HEAD' ? 'GET' : $method;
        try {
            Session::begin();
            match (true) {
                "$method $path" === 'GET /' => self::home(),
                "$method $path" === 'GET /login' => self::show('login', ['title' => 'Log in', 'error' => null]),
                "$method $path" === 'POST /login' => self::login(),
                "$method $path" === 'POST /logout' => self::logout(),
                "$method $path" === 'GET /cart' => self::cart(),
                "$method $path" === 'POST /cart' => self::putInCart(),
                "$method $path" === 'GET /orders' => self::orders(),
                "$method $path" === 'POST /orders' => self::buy(),
                "$method $path" === 'GET /reports' => self::reports(),
                preg_match('#^/products/([^/]+)(/picture)?$#D', $path, $found) === 1 => self::productPage($method, $found),
                default => self::missing(),
            };
        } catch (Refused $refused) {
            self::problem($refused->status(), $refused->getMessage());
        } catch (\Throwable $error) {
            error_log((string) $error);
            self::problem(500, 'internal error');
        }
    }

    public static function missing(): void
    {
        self::problem(404, 'There is no such page.');
    }

    private static function home(): void
    {
        $text = is_string($_GET['q'] ?? '') ? $_GET['q'] ?? '' : '';
        self::show('home', ['title' => 'Shop', 'text' => $text, 'products' => find_products($text, 1, 100)['items']]);
    }

    private static function productPage(string $method, array $found): void
    {
        $product = product(natural(rawurldecode($found[1])) ?? throw new Refused('product not found', 40410));
        match (true) {
            $method === 'GET' && !isset($found[2]) => self::show('product', ['title' => $product['name'], 'product' => $product]),
            $method === 'POST' && isset($found[2]) => self::storePicture($product['id']),
            default => self::missing(),
        };
    }

    private static function login(): void
    {
        try {
            $user = user_by_password((string) ($_POST['email'] ?? ''), (string) ($_POST['password'] ?? ''));
        } catch (Refused $refused) {
            http_response_code($refused->status());
            self::show('login', ['title' => 'Log in', 'error' => $refused->getMessage()]);
            return;
        }
        Session::login($user['id']);
        self::redirect('/orders');
    }

    private static function logout(): void
    {
        session_write_close();
        Session::logout();
        self::redirect('/');
    }

    private static function cart(): void
    {
        $lines = [];
        foreach ($_SESSION['cart'] ?? [] as $id => $quantity) {
            $lines[] = ['product' => product($id), 'quantity' => $quantity];
        }
        self::show('cart', ['title' => 'Cart', 'lines' => $lines]);
    }

    private static function putInCart(): void
    {
        $product = product(natural((string) ($_POST['product_id'] ?? '')) ?? 0);
        $_SESSION['cart'][$product['id']] = min(99, ($_SESSION['cart'][$product['id']] ?? 0) + 1);
        self::redirect('/cart');
    }

    private static function orders(): void
    {
        $user = self::user();
        self::show('orders', ['title' => 'Orders', 'user' => user($user), 'orders' => orders_of($user)]);
    }

    private static function buy(): void
    {
        $user = self::user();
        if (($_SESSION['cart'] ?? []) === []) {
            throw new Refused('the cart is empty', 40015);
        }
        place_order($user, $_SESSION['cart']);
        unset($_SESSION['cart']);
        self::redirect('/orders');
    }

    private static function reports(): void
    {
        self::user();
        // Let the visitor's other requests have the session while the report is drawn.
        session_write_close();
        self::show('reports', ['title' => 'Sales', 'report' => sales_report()]);
    }

    private static function storePicture(int $product_id): void
    {
        self::user();
        $upload = $_FILES['picture'] ?? null;
        if (!is_array($upload) || $upload['error'] !== UPLOAD_ERR_OK || $upload['size'] > self::PICTURE_BYTES) {
            throw new Refused('a picture of at most 2 MiB is needed', 40016);
        }
        $kind = self::PICTURES[@getimagesize($upload['tmp_name'])[2] ?? 0] ?? throw new Refused('not a picture', 41510);
        $name = $product_id . '-' . bin2hex(random_bytes(4)) . ".$kind";
        if (!move_uploaded_file($upload['tmp_name'], state_dir('pictures') . "/$name")) {
            throw new \RuntimeException("cannot store the picture $name");
        }
        Database::get()->change('UPDATE products SET picture = ? WHERE id = ?', ["/pictures/$name", $product_id]);
        self::redirect("/products/$product_id");
    }

    private static function user(): int
    {
        $user = $_SESSION['user_id'] ?? null;
        return is_int($user) ? $user : throw new Refused('Please log in first.', 40110);
    }

    private static function redirect(string $to): void
    {
        header("Location: $to", true, 303);
    }

    private static function problem(int $status, string $message): void
    {
        http_response_code($status);
        self::show('problem', ['title' => "$status", 'message' => $message]);
    }

    /** @param array<string, mixed> $with what the view may use, by name */
    private static function show(string $view, array $with): void
    {
        header('Content-Type: text/html; charset=utf-8');
        extract($with);
        $views = dirname(__DIR__) . '/views';
        ob_start();
        require "$views/$view.php";
        $content = ob_get_clean();
        require "$views/layout.php";
    }
}

/** Text, safe inside HTML. */
function h(string|int|null $text): string
{
    return htmlspecialchars((string) $text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

function money(int $cents): string
{
    return number_format($cents / 100, 2, '.', ',') . ' €';
}
