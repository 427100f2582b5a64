<?php
// Checks nothing and hands a file over to the server in front.
header('Content-Type: application/pdf');
header('Content-Disposition: attachment; filename="report.pdf"');
header('X-Kept: yes');
header($_GET['by'] . ': ' . $_GET['file']);
echo 'never sent';
