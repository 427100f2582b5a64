<?php
// An application with a login of its own: ?do=in&user=7, out, leave (its cookie stays), count, hold, and nothing to see who it is.
session_start();
switch ($_GET['do'] ?? '') {
    case 'in':
        session_regenerate_id(true);
        $_SESSION['auth'] = ['user_id' => is_numeric($_GET['user']) ? (int) $_GET['user'] : $_GET['user'], 'roles' => ['admin', 'editor']];
        $_SESSION['cart'] = new ArrayObject(['sku-1']);
        break;
    case 'out':
        $_SESSION = [];
        session_destroy();
        setcookie(session_name(), '', 1);
        break;
    case 'leave':
        $_SESSION = [];
        break;
    case 'count':
        $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
        break;
    case 'hold':
        sleep(2);
        break;
}
if (!isset($_SESSION['auth']) && isset($_GET['guard'])) {
    header('Location: /login.php');
    http_response_code(302);
}
header('Content-Type: application/json');
echo json_encode([
    'id' => session_id(),
    'user' => $_SESSION['auth']['user_id'] ?? null,
    'told' => array_filter($_SERVER, fn ($name) => str_starts_with($name, 'HTTP_X_STRANGLER'), ARRAY_FILTER_USE_KEY),
]);
