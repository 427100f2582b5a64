<?php
// Answers with the status and the headers it is asked for.
http_response_code((int) ($_GET['status'] ?? 200));
foreach ($_GET['header'] ?? [] as $line) {
    header($line, false);
}
if (isset($_GET['body'])) {
    echo $_GET['body'];
}
