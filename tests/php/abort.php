<?php
// Goes on writing until its reader has left, then notes that it noticed.
ignore_user_abort(true);
for ($i = 0; $i < 200 && !connection_aborted(); $i++) {
    echo str_repeat('.', 1024), "\n";
    flush();
    usleep(20000);
}
file_put_contents($_GET['mark'], connection_aborted() ? 'noticed' : 'never noticed');
