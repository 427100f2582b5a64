<?php namespace Shop; ?>
<h1>Cart</h1>
<?php if ($lines === []): ?>
<p>It is empty.</p>
<?php else: ?>
<table>
<?php foreach ($lines as $line): ?>
  <tr>
    <td><?= h($line['product']['name']) ?></td>
    <td><?= h($line['quantity']) ?></td>
    <td><?= money($line['product']['price_cents'] * $line['quantity']) ?></td>
  </tr>
<?php endforeach ?>
</table>
<form method="post" action="/orders"><button>Buy</button></form>
<?php endif ?>
