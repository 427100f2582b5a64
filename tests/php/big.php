<?php
// Prints as many bytes as asked for, in writes of 64 KiB, and their md5 in a header.
$bytes = (int) $_GET['bytes'];
$block = '';
for ($i = 0; strlen($block) < 65536; $i++) {
    $block .= md5("block $i");
}
$sum = hash_init('md5');
for ($left = $bytes; $left > 0; $left -= 65536) {
    hash_update($sum, substr($block, 0, min($left, 65536)));
}
header('Content-Type: application/octet-stream');
header('X-Md5: ' . hash_final($sum));
if (isset($_GET['length'])) {
    header("Content-Length: $bytes");
}
for ($left = $bytes; $left > 0; $left -= 65536) {
    echo substr($block, 0, min($left, 65536));
}
