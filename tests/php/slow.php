<?php
// Answers after a while, and notes in a file that it ran (`mark`).
if (isset($_GET['mark'])) {
    file_put_contents($_GET['mark'], "started\n", FILE_APPEND);
}
usleep((int) ($_GET['ms'] ?? 100) * 1000);
if (isset($_GET['mark'])) {
    file_put_contents($_GET['mark'], "done\n", FILE_APPEND);
}
header('Content-Type: text/plain');
echo 'slept in ', getmypid();
