//! `/api/v1/products`: the list, with search and pages, and one product.

use std::collections::HashMap;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row, query_as, query_scalar};

use crate::Shop;
use crate::api::{self, Answer, Error, refuse};

pub(crate) fn router(shop: &Shop) -> Router {
    Router::new()
        .route("/api/v1/products", get(list))
        .route("/api/v1/products/{id}", get(one))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .with_state(shop.clone())
}

#[derive(Serialize)]
pub(crate) struct Product {
    id: i64,
    sku: String,
    pub(crate) name: String,
    description: String,
    pub(crate) price_cents: i64,
    stock: i64,
    picture: Option<String>,
}

impl<'r> FromRow<'r, AnyRow> for Product {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            sku: row.try_get("sku")?,
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            price_cents: row.try_get("price_cents")?,
            stock: row.try_get("stock")?,
            picture: row.try_get("picture")?,
        })
    }
}

#[derive(Serialize)]
struct Page {
    items: Vec<Product>,
    page: i64,
    per_page: i64,
    total: i64,
}

async fn list(State(shop): State<Shop>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let page = api::number(&query, "page", 1, 1_000_000)?;
    let per_page = api::number(&query, "per_page", 20, 100)?;
    let pattern = pattern(query.get("q").map_or("", String::as_str));

    let mut held = shop.database.hold().await?;
    let total = query_scalar("SELECT COUNT(*) FROM products WHERE name LIKE ? ESCAPE '!'")
        .bind(pattern.as_str())
        .fetch_one(&mut *held)
        .await?;
    let items = query_as(
        "SELECT id, sku, name, description, price_cents, stock, picture FROM products \
         WHERE name LIKE ? ESCAPE '!' ORDER BY id LIMIT ? OFFSET ?",
    )
    .bind(pattern.as_str())
    .bind(per_page)
    .bind((page - 1) * per_page)
    .fetch_all(&mut *held)
    .await?;
    Ok(api::ok(StatusCode::OK, Page { items, page, per_page, total }))
}

async fn one(State(shop): State<Shop>, id: Result<Path<String>, PathRejection>) -> Answer {
    let id = api::id(id, absent)?;
    let mut held = shop.database.hold().await?;
    Ok(api::ok(StatusCode::OK, find(&mut held, id).await?))
}

pub(crate) async fn find(connection: &mut AnyConnection, id: i64) -> Result<Product, Error> {
    query_as("SELECT id, sku, name, description, price_cents, stock, picture FROM products WHERE id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await?
        .ok_or_else(absent)
}

fn absent() -> Error {
    refuse(40410, "product not found")
}

/// What `LIKE … ESCAPE '!'` wants, to find `text` anywhere.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for letter in text.chars() {
        if matches!(letter, '!' | '%' | '_') {
            pattern.push('!');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}
