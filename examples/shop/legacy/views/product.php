<?php namespace Shop; ?>
<h1><?= h($product['name']) ?></h1>
<?php if ($product['picture'] !== null): ?>
<img src="<?= h($product['picture']) ?>" alt="">
<?php endif ?>
<p><?= h($product['description']) ?></p>
<p><strong><?= money($product['price_cents']) ?></strong> · <?= h($product['stock']) ?> in stock · <?= h($product['sku']) ?></p>
<form method="post" action="/cart">
  <input type="hidden" name="product_id" value="<?= h($product['id']) ?>">
  <button>Put in the cart</button>
</form>
<?php if (isset($_SESSION['user_id'])): ?>
<form method="post" action="/products/<?= h($product['id']) ?>/picture" enctype="multipart/form-data">
  <input type="file" name="picture" accept="image/*" required>
  <button>Upload a picture</button>
</form>
<?php endif ?>
