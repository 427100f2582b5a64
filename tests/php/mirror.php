<?php
// Gives the body back while it is still being read: both directions at once.
header('Content-Type: application/octet-stream');
$input = fopen('php://input', 'rb');
while (!feof($input)) {
    echo fread($input, 8192);
    flush();
}
