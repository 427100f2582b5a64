<?php namespace Shop; ?>
<form action="/"><input name="q" value="<?= h($text) ?>" placeholder="Search"> <button>Search</button></form>
<ul class="products">
<?php foreach ($products as $product): ?>
  <li>
    <a href="/products/<?= h($product['id']) ?>"><?= h($product['name']) ?></a>
    <span><?= money($product['price_cents']) ?></span>
  </li>
<?php endforeach ?>
</ul>
