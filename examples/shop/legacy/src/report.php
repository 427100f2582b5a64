<?php
declare(strict_types=1);

namespace Shop;

/**
 * The slow page every old application has: revenue per product, and a forecast drawn from it.
 *
 * The forecast plays a month of 1,000 orders 24,000 times over, each order drawn from those there were.
 * The draws come from a fixed generator, so that the same orders give the same report on both sides.
 */
function sales_report(): array
{
    $products = Database::get()->all(
        'SELECT p.id, p.name, CAST(SUM(i.quantity) AS SIGNED) AS units,'
        . ' CAST(SUM(i.quantity * i.price_cents) AS SIGNED) AS revenue_cents'
        . ' FROM order_items i JOIN products p ON p.id = i.product_id'
        . ' GROUP BY p.id, p.name ORDER BY revenue_cents DESC, p.id',
    );
    $totals = array_column(Database::get()->all('SELECT total_cents FROM orders ORDER BY id'), 'total_cents');
    return [
        'orders' => count($totals),
        'revenue_cents' => array_sum($totals),
        'products' => $products,
        'forecast' => forecast($totals),
    ];
}

/** @param non-empty-list<int> $totals */
function forecast(array $totals): array
{
    $count = count($totals);
    $draw = 1;
    $months = [];
    for ($month = 0; $month < 24000; $month++) {
        $sum = 0;
        for ($order = 0; $order < 1000; $order++) {
            $draw = ($draw * 1103515245 + 12345) & 0x7fffffff;
            $sum += $totals[($draw >> 8) % $count];
        }
        $months[] = $sum;
    }
    sort($months);
    return ['p05_cents' => $months[1200], 'p50_cents' => $months[12000], 'p95_cents' => $months[22800]];
}
