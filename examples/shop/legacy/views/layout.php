<?php namespace Shop; ?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title><?= h($title) ?></title>
<link rel="stylesheet" href="/assets/shop.css">
<header>
  <a class="name" href="/">The shop</a>
  <nav>
    <a href="/cart">Cart</a>
    <a href="/orders">Orders</a>
    <a href="/reports">Sales</a>
<?php if (isset($_SESSION['user_id'])): ?>
    <form method="post" action="/logout"><button>Log out</button></form>
<?php else: ?>
    <a href="/login">Log in</a>
<?php endif ?>
  </nav>
</header>
<main>
<?= $content ?>
</main>
</html>
