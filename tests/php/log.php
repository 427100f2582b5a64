<?php
// Writes to PHP's error log (FastCGI's stderr) before, between and after its answer.
error_log('first line of ' . $_GET['word']);
echo 'one ';
flush();
error_log("second line \x1b[31mof " . $_GET['word']);
echo 'two';
flush();
error_log(str_repeat('long ', (int) ($_GET['repeat'] ?? 0)) . 'last line of ' . $_GET['word']);
