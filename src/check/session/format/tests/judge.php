<?php
// Reads sessions as PHP does: of each line's bytes, what is at each of its paths; or null when PHP refuses them.
require __DIR__ . '/classes.php';

function told($value) {
    if (is_null($value)) return ['null'];
    if (is_bool($value)) return ['bool', $value];
    if (is_int($value)) return ['int', (string) $value];
    if (is_float($value)) return ['float', is_nan($value) ? 'nan' : bin2hex(pack('E', $value))];
    if (is_string($value)) return ['text', base64_encode($value)];
    if (is_array($value) && count(array_filter($value, fn ($v) => is_array($v) || is_object($v))) === 0) {
        return ['list', array_values(array_map('told', $value))];
    }
    return ['more'];
}

function at($in, array $path) {
    foreach ($path as $key) {
        if (is_object($in)) {
            // What these write is not what they hold.
            if ($in instanceof Keeper || $in instanceof ArrayObject || $in instanceof Own || $in instanceof UnitEnum) return ['more'];
            $found = null;
            foreach ((array) $in as $name => $value) {
                $end = strrpos((string) $name, "\0");
                if (($end === false ? (string) $name : substr($name, $end + 1)) === $key) $found = [$value];
            }
            if (!$found) return null;
            $in = $found[0];
        } elseif (is_array($in) && array_key_exists($key, $in)) {
            $in = $in[$key];
        } else {
            return null;
        }
    }
    return told($in);
}

while (($line = fgets(STDIN)) !== false) {
    $asked = json_decode($line, true);
    $session = decode_session($asked['format'], base64_decode($asked['data']));
    $answers = $session === null ? null
        : array_map(fn ($path) => at($session, array_map('base64_decode', $path)), $asked['paths']);
    $answered[] = json_encode($answers);
}
echo implode("\n", $answered ?? []), "\n";
