<?php namespace Shop; ?>
<h1>Log in</h1>
<?php if ($error !== null): ?>
<p class="error"><?= h($error) ?></p>
<?php endif ?>
<form method="post" action="/login" class="stack">
  <label>Email <input type="email" name="email" value="alice@shop.example" required></label>
  <label>Password <input type="password" name="password" required></label>
  <button>Log in</button>
</form>
<p><small>In this demonstration: alice@shop.example, alice-s3cret.</small></p>
