<?php namespace Shop; ?>
<h1>Sales</h1>
<p><?= h($report['orders']) ?> orders, <?= money($report['revenue_cents']) ?></p>
<table>
<?php foreach ($report['products'] as $product): ?>
  <tr>
    <td><?= h($product['name']) ?></td>
    <td><?= h($product['units']) ?></td>
    <td><?= money($product['revenue_cents']) ?></td>
  </tr>
<?php endforeach ?>
</table>
<p>A thousand orders will bring <?= money($report['forecast']['p05_cents']) ?>
to <?= money($report['forecast']['p95_cents']) ?>, most likely about <?= money($report['forecast']['p50_cents']) ?>.</p>
<p><a href="/downloads/price-list.csv">Price list</a></p>
