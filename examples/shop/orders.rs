//! `/api/v1/orders`: a user's orders, one of them, and a new one.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;
use sqlx::{AnyConnection, Connection, query, query_as, query_scalar};

use crate::api::{self, Answer, Error, refuse};
use crate::{Shop, now, products};

pub(crate) fn router(shop: &Shop) -> Router {
    Router::new()
        .route("/api/v1/orders", get(list).post(place))
        .route("/api/v1/orders/{id}", get(one))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .with_state(shop.clone())
}

#[derive(Serialize)]
struct List {
    items: Vec<Summary>,
}

#[derive(Serialize)]
struct Summary {
    id: i64,
    status: String,
    total_cents: i64,
    created_at: String,
    item_count: i64,
}

#[derive(Serialize)]
struct Order {
    id: i64,
    status: String,
    total_cents: i64,
    created_at: String,
    items: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    product_id: i64,
    name: String,
    quantity: i64,
    price_cents: i64,
}

async fn list(State(shop): State<Shop>, headers: HeaderMap) -> Answer {
    let caller = api::caller(&shop, &headers).await?;
    let rows: Vec<(i64, String, i64, String, i64)> = query_as(
        "SELECT id, status, total_cents, created_at, \
         (SELECT COUNT(*) FROM order_items WHERE order_id = orders.id) AS item_count \
         FROM orders WHERE user_id = ? ORDER BY id DESC LIMIT 50",
    )
    .bind(caller)
    .fetch_all(&mut *shop.database.hold().await?)
    .await?;
    let items = rows
        .into_iter()
        .map(|(id, status, total_cents, created_at, item_count)| Summary {
            id,
            status,
            total_cents,
            created_at,
            item_count,
        })
        .collect();
    Ok(api::ok(StatusCode::OK, List { items }))
}

async fn one(State(shop): State<Shop>, headers: HeaderMap, id: Result<Path<String>, PathRejection>) -> Answer {
    let caller = api::caller(&shop, &headers).await?;
    let id = api::id(id, absent)?;
    let mut held = shop.database.hold().await?;
    Ok(api::ok(StatusCode::OK, find(&mut held, id, caller).await?))
}

async fn place(State(shop): State<Shop>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let caller = api::caller(&shop, &headers).await?;
    let quantities = quantities(&api::body(&bytes)?)?;
    let mut held = shop.database.hold().await?;
    let id = buy(&mut held, caller, &quantities).await?;
    Ok(api::ok(StatusCode::CREATED, find(&mut held, id, caller).await?))
}

/// What is to be bought, by product: a product named twice counts twice.
fn quantities(body: &Value) -> Result<BTreeMap<i64, i64>, Error> {
    let items = body
        .get("items")
        .and_then(Value::as_array)
        .filter(|items| (1..=50).contains(&items.len()))
        .ok_or_else(|| refuse(40011, "items: 1 to 50 are needed"))?;
    let mut quantities = BTreeMap::new();
    for item in items {
        let number = |name: &str, max: i64| {
            item.get(name)
                .and_then(Value::as_i64)
                .filter(|number| (1..=max).contains(number))
                .ok_or_else(|| refuse(40012, "items: each needs a product_id and a quantity from 1 to 99"))
        };
        *quantities.entry(number("product_id", 999_999_999)?).or_insert(0) += number("quantity", 99)?;
    }
    Ok(quantities)
}

/// Buys all of it or nothing.
async fn buy(connection: &mut AnyConnection, user: i64, quantities: &BTreeMap<i64, i64>) -> Result<i64, Error> {
    let mut transaction = connection.begin().await?;
    let mut total = 0;
    let mut lines = Vec::new();
    // In the order of the products, so that two buyers never wait for each other in a circle.
    for (&product_id, &quantity) in quantities {
        // The write comes first: it takes the lock that makes the read below final.
        let taken = query("UPDATE products SET stock = stock - ? WHERE id = ? AND stock >= ?")
            .bind(quantity)
            .bind(product_id)
            .bind(quantity)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        let product = products::find(&mut transaction, product_id).await?;
        if taken == 0 {
            return Err(refuse(40910, format!("out of stock: {}", product.name)));
        }
        total += product.price_cents * quantity;
        lines.push((product_id, quantity, product.price_cents));
    }
    let inserted = query("INSERT INTO orders (user_id, status, total_cents, created_at) VALUES (?, 'paid', ?, ?)")
        .bind(user)
        .bind(total)
        .bind(now())
        .execute(&mut *transaction)
        .await?;
    let order = match inserted.last_insert_id() {
        Some(id) => id,
        // For SQLite, sqlx's `Any` does not pass it on.
        None => query_scalar("SELECT last_insert_rowid()").fetch_one(&mut *transaction).await?,
    };
    for (product_id, quantity, price_cents) in lines {
        query("INSERT INTO order_items (order_id, product_id, quantity, price_cents) VALUES (?, ?, ?, ?)")
            .bind(order)
            .bind(product_id)
            .bind(quantity)
            .bind(price_cents)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(order)
}

/// One order with its lines; somebody else's is as absent as one that never was.
async fn find(connection: &mut AnyConnection, id: i64, user: i64) -> Result<Order, Error> {
    let (id, status, total_cents, created_at) =
        query_as("SELECT id, status, total_cents, created_at FROM orders WHERE id = ? AND user_id = ?")
            .bind(id)
            .bind(user)
            .fetch_optional(&mut *connection)
            .await?
            .ok_or_else(absent)?;
    let lines: Vec<(i64, String, i64, i64)> = query_as(
        "SELECT i.product_id, p.name, i.quantity, i.price_cents FROM order_items i \
         JOIN products p ON p.id = i.product_id WHERE i.order_id = ? ORDER BY i.product_id",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let items = lines
        .into_iter()
        .map(|(product_id, name, quantity, price_cents)| Line { product_id, name, quantity, price_cents })
        .collect();
    Ok(Order { id, status, total_cents, created_at, items })
}

fn absent() -> Error {
    refuse(40411, "order not found")
}
