//! `/api/v1/login`, `/api/v1/logout` and `/api/v1/users/me`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row, query, query_as};
use tokio::task::spawn_blocking;

use crate::api::{self, Answer, Error, refuse};
use crate::{Shop, now, session};

/// The hash of a password nobody has: an unknown email costs as much time as a wrong password.
const NOBODY: &str = "$2y$10$6qZNhsFZ7uYRll4qsW1muu3VqGc5gsRanVZs8L0D5c9A3yl/S1uYO";

pub(crate) fn router(shop: &Shop) -> Router {
    Router::new()
        .route("/api/v1/login", post(login))
        .route("/api/v1/logout", post(logout))
        .route("/api/v1/users/me", get(me))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .with_state(shop.clone())
}

#[derive(Serialize)]
struct User {
    id: i64,
    name: String,
    email: Option<String>,
    created_at: String,
}

impl<'r> FromRow<'r, AnyRow> for User {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            email: row.try_get("email")?,
            created_at: row.try_get("created_at")?,
        })
    }
}

#[derive(Serialize)]
struct LoggedIn {
    token: String,
    user: User,
}

async fn login(State(shop): State<Shop>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let body = api::body(&bytes)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let user = match (text("code").filter(|code| !code.is_empty()), text("email"), text("password")) {
        (Some(code), ..) => {
            let openid = shop.wechat.openid(code).await?;
            by_openid(&mut *shop.database.hold().await?, &openid).await?
        }
        (None, Some(email), Some(password)) => by_password(&shop, email, password).await?,
        _ => return Err(refuse(40013, "email and password, or code, are needed")),
    };
    let token = shop.sessions.login(&headers, user.id).await?;
    let cookie = session::cookie(&token);
    Ok(([(SET_COOKIE, cookie)], api::ok(StatusCode::OK, LoggedIn { token, user })).into_response())
}

async fn logout(State(shop): State<Shop>, headers: HeaderMap) -> Answer {
    shop.sessions.logout(&headers).await?;
    Ok(([(SET_COOKIE, session::expired_cookie())], api::ok(StatusCode::OK, ())).into_response())
}

async fn me(State(shop): State<Shop>, headers: HeaderMap) -> Answer {
    let id = api::caller(&shop, &headers).await?;
    let user: Option<User> = query_as("SELECT id, name, email, created_at FROM users WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut *shop.database.hold().await?)
        .await?;
    Ok(api::ok(StatusCode::OK, user.ok_or_else(|| refuse(40110, "login required"))?))
}

async fn by_password(shop: &Shop, email: &str, password: &str) -> Result<User, Error> {
    // The connection goes back before the hash is computed, which takes longer than any query here.
    let found: Option<(User, Hash)> = {
        let mut held = shop.database.hold().await?;
        query_as::<_, WithHash>("SELECT id, name, email, created_at, password_hash FROM users WHERE email = ?")
            .bind(email.to_ascii_lowercase())
            .fetch_optional(&mut *held)
            .await?
            .map(|WithHash(user, hash)| (user, hash))
    };
    let (user, hash) = match found {
        Some((user, Some(hash))) => (Some(user), hash),
        _ => (None, NOBODY.to_owned()),
    };
    let password = password.to_owned();
    let good = spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await?;
    user.filter(|_| good).ok_or_else(|| refuse(40111, "wrong email or password"))
}

type Hash = Option<String>;

struct WithHash(User, Hash);

impl<'r> FromRow<'r, AnyRow> for WithHash {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(User::from_row(row)?, row.try_get("password_hash")?))
    }
}

/// The user with this WeChat openid; the first login creates one.
async fn by_openid(connection: &mut AnyConnection, openid: &str) -> Result<User, Error> {
    if let Some(user) = find_openid(connection, openid).await? {
        return Ok(user);
    }
    let created = query("INSERT INTO users (name, wechat_openid, created_at) VALUES ('WeChat user', ?, ?)")
        .bind(openid)
        .bind(now())
        .execute(&mut *connection)
        .await;
    // Two first logins at once: the other one may have created the user.
    match (find_openid(connection, openid).await?, created) {
        (Some(user), _) => Ok(user),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => Err(sqlx::Error::RowNotFound.into()),
    }
}

async fn find_openid(connection: &mut AnyConnection, openid: &str) -> Result<Option<User>, sqlx::Error> {
    query_as("SELECT id, name, email, created_at FROM users WHERE wechat_openid = ?")
        .bind(openid)
        .fetch_optional(connection)
        .await
}
