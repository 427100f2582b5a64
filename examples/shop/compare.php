<?php
declare(strict_types=1);

// Asks both sides of the shop the same questions and compares the answers: status, the headers that matter,
// and every byte of the body but for what must differ (ids of new orders and sessions, moments).
//
//     php examples/shop/compare.php http://127.0.0.1:8091 http://127.0.0.1:8092
//
// Both must run on the same database and the same sessions: what one side hands out is used at the other.

[, $legacy, $new] = $argv + [null, null, null];
if ($legacy === null || $new === null) {
    fwrite(STDERR, "usage: php compare.php LEGACY_URL NEW_URL\n");
    exit(2);
}

/** @return array{status: int, headers: array<string, string>, body: string} */
function ask(string $base, string $method, string $path, array $headers = [], ?string $body = null): array
{
    if ($body !== null) {
        $headers[] = 'Content-Type: application/json';
    }
    $context = stream_context_create(['http' => [
        'method' => $method,
        'header' => $headers,
        'content' => $body,
        'ignore_errors' => true,
        'follow_location' => 0,
        'protocol_version' => 1.1,
        'timeout' => 30,
    ]]);
    $text = @file_get_contents($base . $path, false, $context);
    if ($text === false) {
        fwrite(STDERR, "$base does not answer\n");
        exit(2);
    }
    $lines = $http_response_header;
    $found = [];
    foreach (array_slice($lines, 1) as $line) {
        [$name, $value] = explode(':', $line, 2);
        $found[strtolower($name)] = trim($value);
    }
    return ['status' => (int) explode(' ', $lines[0])[1], 'headers' => $found, 'body' => $text];
}

/** What is compared of an answer. */
function essence(array $answer): string
{
    $lines = [(string) $answer['status']];
    foreach (['content-type', 'cache-control', 'allow', 'set-cookie'] as $name) {
        $lines[] = "$name: " . ($answer['headers'][$name] ?? '-');
    }
    $lines[] = $answer['body'];
    return preg_replace(
        ['/PHPSESSID=[0-9a-v]{26}/', '/"token":"[0-9a-v]{26}"/', '/"created_at":"20(2[5-9]|[3-9]\d)-[^"]+"/', '/"data":\{"id":\d+,"status":"paid"/'],
        ['PHPSESSID=ID', '"token":"ID"', '"created_at":"NOW"', '"data":{"id":N,"status":"paid"'],
        implode("\n", $lines),
    );
}

$alice = '{"email":"Alice@shop.example","password":"alice-s3cret"}';
$token = fn (array $answer): string => json_decode($answer['body'], true)['data']['token'] ?? 'none';
$by_legacy = $token(ask($legacy, 'POST', '/api/v1/login', [], $alice));
$by_new = $token(ask($new, 'POST', '/api/v1/login', [], $alice));

$questions = [
    ['GET', '/api/v1/products'],
    ['HEAD', '/api/v1/products'],
    ['GET', '/api/v1/products?page=2&per_page=7'],
    ['GET', '/api/v1/products?page=99'],
    ['GET', '/api/v1/products?q=ca'],
    ['GET', '/api/v1/products?q=%E8%8C%B6'],
    ['GET', '/api/v1/products?q=100%25'],
    ['GET', '/api/v1/products?q=%22%2Fdev%2F'],
    ['GET', '/api/v1/products?q=%27%20OR%201%3D1'],
    ['GET', '/api/v1/products?q=!'],
    ['GET', '/api/v1/products?q=_&q=fig'],
    ['GET', '/api/v1/products?page=0'],
    ['GET', '/api/v1/products?page=-1'],
    ['GET', '/api/v1/products?page=1.0'],
    ['GET', '/api/v1/products?page=+1'],
    ['GET', '/api/v1/products?page='],
    ['GET', '/api/v1/products?page[]=1'],
    ['GET', '/api/v1/products?per_page=101'],
    ['GET', '/api/v1/products?per_page=99999999999999999999'],
    ['POST', '/api/v1/products'],
    ['DELETE', '/api/v1/products/1'],
    ['GET', '/api/v1/products/3'],
    ['GET', '/api/v1/products/%34'],
    ['GET', '/api/v1/products/18'],
    ['GET', '/api/v1/products/999'],
    ['GET', '/api/v1/products/0'],
    ['GET', '/api/v1/products/01'],
    ['GET', '/api/v1/products/abc'],
    ['GET', '/api/v1/products/%ff'],
    ['GET', '/api/v1/products/1/more'],
    ['GET', '/api/v1/orders'],
    ['PUT', '/api/v1/orders'],
    ['POST', '/api/v1/orders', [], '{"items":[{"product_id":1,"quantity":1}]}'],
    ['GET', '/api/v1/users/me'],
    ['GET', '/api/v1/users/me', ['Cookie: PHPSESSID=aaaaaaaaaaaaaaaaaaaaaaaaaa']],
    ['GET', '/api/v1/users/me', ['Cookie: PHPSESSID=../../../../etc/passwd']],
    ['GET', '/api/v1/users/me', ['Authorization: Bearer nobody']],
    ['POST', '/api/v1/login', [], $alice],
    ['POST', '/api/v1/login', [], '{"email":"alice@shop.example","password":"wrong"}'],
    ['POST', '/api/v1/login', [], '{"email":"nobody@shop.example","password":"wrong"}'],
    ['POST', '/api/v1/login', [], '{"email":"alice@shop.example"}'],
    ['POST', '/api/v1/login', [], '{"email":1,"password":2}'],
    ['POST', '/api/v1/login', [], '{"email":'],
    ['POST', '/api/v1/login', [], '"text"'],
    ['POST', '/api/v1/login', [], '[]'],
    ['POST', '/api/v1/login', [], ''],
    ['POST', '/api/v1/login', [], "{\"email\":\"\xff\",\"password\":\"\"}"],
    ['GET', '/api/v1/login'],
    ['GET', '/api/v1/logout'],
    ['POST', '/api/v1/logout'],
    ['GET', '/reports/sales'],
    ['POST', '/reports/sales'],
];
foreach (['good-compare', 'good-compare', 'used', 'wrong', 'risky', 'busy', 'a b&c=d'] as $code) {
    $questions[] = ['POST', '/api/v1/login', [], json_encode(['code' => $code])];
}
foreach ([$by_legacy, $by_new] as $id) {
    $cookie = ["Cookie: a=b; PHPSESSID=$id"];
    array_push(
        $questions,
        ['GET', '/api/v1/users/me', $cookie],
        ['GET', '/api/v1/users/me', ["Authorization: Bearer $id"]],
        ['GET', '/api/v1/users/me', ["X-Token: $id"]],
        ['GET', '/api/v1/orders', $cookie],
        ['GET', '/api/v1/orders/1', $cookie],
        ['GET', '/api/v1/orders/3', $cookie],
        ['GET', '/api/v1/orders/x', $cookie],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":5,"quantity":2},{"product_id":4,"quantity":1},{"product_id":5,"quantity":1}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":24,"quantity":2}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":1,"quantity":1},{"product_id":999,"quantity":1}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":{"a":1}}'],
        ['POST', '/api/v1/orders', $cookie, '{}'],
        ['POST', '/api/v1/orders', $cookie, '[1]'],
        ['POST', '/api/v1/orders', $cookie, '7'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":1}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":1,"quantity":100}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":1,"quantity":1.0}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[{"product_id":"1","quantity":1}]}'],
        ['POST', '/api/v1/orders', $cookie, '{"items":[7]}'],
    );
}
$differences = 0;
$compare = function (array $question) use ($legacy, $new, &$differences): string {
    [$a, $b] = [essence(ask($legacy, ...$question)), essence(ask($new, ...$question))];
    if ($a !== $b) {
        $differences++;
        echo implode(' ', array_map(fn ($part) => is_array($part) ? implode(', ', $part) : $part, $question)), "\n";
        echo "--- legacy\n$a\n--- new\n$b\n\n";
    }
    return $b;
};
array_map($compare, $questions);

// A session ended at one side is ended at the other.
foreach ([[$legacy, $by_new], [$new, $by_legacy]] as [$side, $id]) {
    $question = ['GET', '/api/v1/users/me', ["Cookie: PHPSESSID=$id"]];
    $before = $compare($question);
    ask($side, 'POST', '/api/v1/logout', ["Cookie: PHPSESSID=$id"]);
    if (!str_starts_with($before, '200') || !str_starts_with($compare($question), '401')) {
        $differences++;
        echo "a logout at $side does not count at the other side\n";
    }
}
echo count($questions) + 4, " questions, $differences answered differently\n";
exit($differences === 0 ? 0 : 1);
