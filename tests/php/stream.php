<?php
// Server-sent events: each flushed, then a pause.
header('Content-Type: text/event-stream');
header('Cache-Control: no-cache');
$count = (int) ($_GET['count'] ?? 3);
$pause = (int) ($_GET['ms'] ?? 300);
for ($i = 1; $i <= $count; $i++) {
    echo "data: event $i\n\n";
    flush();
    if ($i < $count) {
        usleep($pause * 1000);
    }
}
