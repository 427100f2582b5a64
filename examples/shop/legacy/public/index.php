<?php
declare(strict_types=1);

// The front controller of the old shop: every request that is not a file under public/ comes here.

namespace Shop;

foreach (['config', 'database', 'session', 'shop', 'report', 'wechat', 'api', 'files', 'pages'] as $part) {
    require __DIR__ . "/../src/$part.php";
}

header_remove('X-Powered-By');
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/';

// PHP's built-in server asks the front controller for the assets as well; PHP-FPM's gateway does not.
if (PHP_SAPI === 'cli-server' && preg_match('#^/assets/[a-z.]+$#D', $path) === 1) {
    return false;
}

match (true) {
    Api::covers($path) => Api::answer($_SERVER['REQUEST_METHOD'], $path),
    str_starts_with($path, '/downloads/') => download(rawurldecode(substr($path, strlen('/downloads/')))),
    str_starts_with($path, '/pictures/') => picture(rawurldecode(substr($path, strlen('/pictures/')))),
    $path === '/events' => events(),
    default => Pages::answer($_SERVER['REQUEST_METHOD'], $path),
};
