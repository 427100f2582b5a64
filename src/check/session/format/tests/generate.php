<?php
// Prints sessions of every shape in every format, a line of JSON each: their bytes, and paths that lead into them.
require __DIR__ . '/classes.php';
ob_start(); // PHP allows no new session once something was printed.
[, $seed, $count, $classes] = $argv;
mt_srand((int) $seed);

function pick(array $of) { return $of[mt_rand(0, count($of) - 1)]; }

function text(): string {
    $texts = ['', 'a', 'user_id', 'naïve ✓ 用户', "null\0byte", 'q"uo;te|}{', '12', '-7', '007', '1.5', "\xff\xfe", str_repeat('long ', 60)];
    return mt_rand(0, 3) ? pick($texts) : substr(md5((string) mt_rand()), 0, mt_rand(1, 32));
}

function value(int $depth, bool $objects) {
    $kinds = ['null', 'bool', 'int', 'int', 'float', 'text', 'text', 'text'];
    if ($depth < 4) array_push($kinds, 'list', 'map', 'map');
    if ($objects && $depth < 4) array_push($kinds, ...explode(',', $GLOBALS['classes']));
    switch (pick($kinds)) {
        case 'null': return null;
        case 'bool': return (bool) mt_rand(0, 1);
        case 'int': return pick([0, 1, -1, 255, 256, -255, -256, 65535, 65536, -65536, 4294967295, 4294967296, -4294967296, PHP_INT_MAX, PHP_INT_MIN, mt_rand()]);
        case 'float': return pick([0.0, -0.0, 0.1, -1.5, 1e300, 1e-300, 1e25, 123456789.123, INF, -INF, NAN]);
        case 'text': return text();
        case 'list':
            $list = [];
            for ($i = mt_rand(0, 5); $i > 0; $i--) $list[] = value($depth + 1, $objects);
            return $list;
        case 'map':
            $map = [];
            for ($i = mt_rand(0, 5); $i > 0; $i--) $map[mt_rand(0, 2) ? text() : mt_rand(-3, 300)] = value($depth + 1, $objects);
            return $map;
        case 'person':
            $class = pick(['Person', 'Admin']);
            return new $class(mt_rand(1, 99), text(), [text(), text()]);
        case 'std': return (object) ['id' => mt_rand(1, 99), 'inner' => value($depth + 1, $objects), '5' => text()];
        case 'enum': return pick(Suit::cases());
        case 'own': return new Own();
        case 'keeper':
            $keeper = new Keeper();
            $keeper->kept = [text(), value($depth + 1, $objects)];
            return $keeper;
        case 'storage': return new ArrayObject([text(), value($depth + 1, $objects)]);
    }
}

function paths($in, array $to, array &$all) {
    if (count($to) >= 4 || count($all) >= 40) return;
    foreach ((array) $in as $key => $value) {
        $name = (string) $key;
        if (is_object($in) && ($end = strrpos($name, "\0")) !== false) $name = substr($name, $end + 1);
        $path = [...$to, $name];
        if (count($all) < 40) $all[] = $path;
        if (is_array($value) || is_object($value)) paths($value, $path, $all);
    }
}

for ($i = 0; $i < (int) $count; $i++) {
    $objects = $i % 3 > 0;
    $references = $i % 3 === 2;
    $session = ['user_id' => value(4, false), 'auth' => ['user_id' => mt_rand(1, 1000), 'roles' => ['admin', 'editor']]];
    for ($keys = mt_rand(0, 6); $keys > 0; $keys--) {
        // What the formats of one variable after another cannot keep is left out of all.
        $key = str_replace(['|', '!'], '', text());
        if ($key === '' || strlen($key) > 127 || is_int(array_key_first([$key => 0]))) $key = 'k' . mt_rand(0, 9);
        $session[$key] = value(0, $objects);
    }
    if ($references) {
        $session['same'] = &$session['user_id'];
        $session['whole'] = &$session['auth'];
        $session['one'] = new Person(1, text(), []);
        $session['two'] = [$session['one'], $session['one'], &$session['auth']['user_id']];
    }
    $all = [['user_id'], ['auth', 'user_id'], ['auth', 'roles'], ['auth', 'roles', '1'], ['auth', 'absent'], ['absent'], ['user_id', 'absent']];
    paths($session, [], $all);
    foreach (['json', 'php', 'php_serialize', 'php_binary', 'igbinary'] as $format) {
        $bytes = encode_session($format, $session);
        if (!is_string($bytes)) continue;
        echo json_encode([
            'format' => $format, 'plain' => !$objects, 'references' => $references, 'data' => base64_encode($bytes),
            'paths' => array_map(fn ($path) => array_map('base64_encode', $path), $all),
        ]), "\n";
    }
    session_id('');
}
