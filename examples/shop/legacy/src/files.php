<?php
declare(strict_types=1);

namespace Shop;

/**
 * Files that PHP hands over without reading them: it says which, the server in front sends it.
 *
 * `/_storage/` is the prefix that routes.toml's `internal` gives to storage/; no client can ask for it.
 */
function download(string $name): void
{
    $file = dirname(__DIR__) . "/storage/$name";
    if (preg_match('/^[a-z0-9][a-z0-9.-]*$/D', $name) !== 1 || !is_file($file)) {
        Pages::missing();
        return;
    }
    header('Content-Type: ' . (str_ends_with($name, '.csv') ? 'text/csv; charset=utf-8' : 'text/plain; charset=utf-8'));
    header("Content-Disposition: attachment; filename=\"$name\"");
    hand_over("/_storage/$name", $file);
}

/** A product's picture, as uploaded. */
function picture(string $name): void
{
    $file = state_dir('pictures') . "/$name";
    if (preg_match('/^[0-9]+-[0-9a-f]{8}\.(png|jpg|gif|webp)$/D', $name, $found) !== 1 || !is_file($file)) {
        Pages::missing();
        return;
    }
    header('Content-Type: image/' . ($found[1] === 'jpg' ? 'jpeg' : $found[1]));
    header('Cache-Control: public, max-age=31536000, immutable');
    hand_over("/_pictures/$name", $file);
}

/** By X-Accel-Redirect, by X-Sendfile when the client asks with `?by=sendfile`; PHP's own server knows neither. */
function hand_over(string $internal, string $file): void
{
    if (PHP_SAPI === 'cli-server') {
        readfile($file);
    } elseif (($_GET['by'] ?? '') === 'sendfile') {
        header("X-Sendfile: $file");
    } else {
        header("X-Accel-Redirect: $internal");
    }
}

/** Five server-sent events, each sent at once. */
function events(): void
{
    header('Content-Type: text/event-stream');
    header('Cache-Control: no-store');
    header('X-Accel-Buffering: no');
    while (ob_get_level() > 0) {
        ob_end_clean();
    }
    for ($n = 1; $n <= 5; $n++) {
        echo "id: $n\nevent: stock\ndata: " . json_encode(['n' => $n, 'at' => now()]) . "\n\n";
        flush();
        if ($n < 5) {
            usleep(200_000);
        }
    }
}
