<?php
declare(strict_types=1);

namespace Shop;

/** Exchanges a mini-program's `code` at WeChat for who the user is. */
function wechat_openid(string $code): string
{
    $base = setting('WECHAT_API_BASE');
    if ($base === '') {
        throw new Refused('wechat login is not configured', 50310);
    }
    $query = http_build_query([
        'appid' => setting('WECHAT_APP_ID'),
        'secret' => setting('WECHAT_APP_SECRET'),
        'js_code' => $code,
        'grant_type' => 'authorization_code',
    ]);
    $context = stream_context_create(['http' => ['timeout' => 5, 'ignore_errors' => true, 'follow_location' => 0]]);
    $answer = @file_get_contents("$base/sns/jscode2session?$query", false, $context);
    $found = $answer === false ? null : json_decode($answer, true);
    // WeChat answers 200 even when it refuses: `errcode` is what counts, absent or 0 when all is well.
    return match (is_array($found) ? $found['errcode'] ?? 0 : -1) {
        0 => is_string($found['openid'] ?? null) ? $found['openid'] : throw new Refused('wechat is unavailable', 50311),
        40029, 40163 => throw new Refused('wechat code is not valid', 40112),
        40226 => throw new Refused('wechat refuses this user', 40310),
        default => throw new Refused('wechat is unavailable', 50311),
    };
}
