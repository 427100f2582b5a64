<?php
// The front controller: says that it was asked, and for what.
header('Content-Type: application/json');
echo json_encode([
    'front' => true,
    'uri' => $_SERVER['REQUEST_URI'],
    'script' => $_SERVER['SCRIPT_NAME'],
    'self' => $_SERVER['PHP_SELF'],
    'path_info' => $_SERVER['PATH_INFO'] ?? null,
    'query' => $_SERVER['QUERY_STRING'],
    'method' => $_SERVER['REQUEST_METHOD'],
], JSON_UNESCAPED_SLASHES);
