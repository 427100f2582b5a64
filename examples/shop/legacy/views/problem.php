<?php namespace Shop; ?>
<h1><?= h($title) ?></h1>
<p><?= h($message) ?></p>
