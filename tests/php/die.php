<?php
// Dies as a process killed from outside does: at once, or in the middle of its answer.
if (isset($_GET['mark'])) {
    file_put_contents($_GET['mark'], "started\n", FILE_APPEND);
}
if (isset($_GET['after'])) {
    if (isset($_GET['length'])) {
        header('Content-Length: 1000000');
    }
    echo str_repeat('x', (int) $_GET['after']);
    flush();
    usleep(50000);
}
posix_kill(getmypid(), 9);
