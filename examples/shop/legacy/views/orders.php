<?php namespace Shop; ?>
<h1>Orders of <?= h($user['name']) ?></h1>
<table>
<?php foreach ($orders as $order): ?>
  <tr>
    <td>#<?= h($order['id']) ?></td>
    <td><?= h($order['created_at']) ?></td>
    <td><?= h($order['status']) ?></td>
    <td><?= money($order['total_cents']) ?></td>
  </tr>
<?php endforeach ?>
</table>
<p><a href="/downloads/terms.txt">Terms of sale</a></p>
