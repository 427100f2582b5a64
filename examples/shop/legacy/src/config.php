<?php
declare(strict_types=1);

namespace Shop;

/** A setting from the environment; under PHP-FPM from the request's FastCGI parameters as well. */
function setting(string $name, string $default = ''): string
{
    $value = getenv($name);
    return $value === false || $value === '' ? $default : $value;
}

/** Where the shop keeps what it writes: the SQLite file, sessions and uploads. Both sides use the same folder. */
function state_dir(string $below = ''): string
{
    $dir = rtrim(setting('SHOP_STATE', dirname(__DIR__, 4) . '/var/shop') . '/' . $below, '/');
    if (!is_dir($dir) && !@mkdir($dir, 0700, true) && !is_dir($dir)) {
        throw new \RuntimeException("cannot create $dir");
    }
    return $dir;
}

/** The present moment as the API writes it. */
function now(): string
{
    return gmdate('Y-m-d\TH:i:s\Z');
}
