<?php
// Everything PHP was told about the request, as JSON.
header('Content-Type: application/json');
$server = array_filter($_SERVER, fn ($value) => is_string($value));
foreach (array_keys($server) as $name) {
    // What the process inherited is not part of the request.
    if (getenv($name) !== false && !str_starts_with($name, 'HTTP_') && in_array($name, ['PATH', 'PWD', 'USER', 'HOME', 'SHLVL', '_', 'OLDPWD'])) {
        unset($server[$name]);
    }
}
ksort($server);
$body = file_get_contents('php://input');
echo json_encode([
    'server' => $server,
    'get' => $_GET,
    'post' => $_POST,
    'cookie' => $_COOKIE,
    'files' => array_map(fn ($file) => ['name' => $file['name'], 'size' => $file['size'], 'md5' => is_file($file['tmp_name']) ? md5_file($file['tmp_name']) : null], $_FILES),
    'length' => strlen($body),
    'md5' => md5($body),
    'pid' => getmypid(),
], JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE);
