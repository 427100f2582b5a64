<?php
// Ends its answer early and works on, as frameworks do after each response.
echo 'answered';
fastcgi_finish_request();
usleep((int) $_GET['ms'] * 1000);
file_put_contents($_GET['mark'], "done\n", FILE_APPEND);
