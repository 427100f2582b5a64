//! A browser of few words, and the comparison of two servers' answers to the same request.
//!
//! Two answers are equal when status, headers and body are, but for what no two servers can have in
//! common: their name, the clock, the framing, and the nonces of the application.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::cookie::Jar;
use reqwest::multipart::Form;

/// The host every request names, so that the application writes the same links behind each server.
pub const HOST: &str = "wordpress.test";

/// One server seen through one browser.
#[derive(Debug)]
pub struct Site {
    address: SocketAddr,
    client: reqwest::Client,
}

/// An answer, taken in whole.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Page {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The value of the form field `name`.
    pub fn field(&self, name: &str) -> String {
        let text = self.text();
        let marked = text
            .split("<input")
            .find(|input| input.contains(&format!("name=\"{name}\"")) || input.contains(&format!("name='{name}'")))
            .unwrap_or_else(|| panic!("no field {name} in {text}"));
        between(marked, "value=\"", "\"").or_else(|| between(marked, "value='", "'")).expect("a value").to_owned()
    }
}

/// The text between two marks.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = start + text[start..].find(after)?;
    text.get(start..end)
}

impl Site {
    /// A browser with these cookies in front of the server at `address`.
    pub fn new(address: SocketAddr, cookies: &Arc<Jar>) -> Self {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .cookie_provider(Arc::clone(cookies))
            .no_proxy()
            .build()
            .expect("an HTTP client");
        Self { address, client }
    }

    pub fn request(&self, method: &str, target: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("http://{}{target}", self.address)).header("host", HOST)
    }

    pub async fn get(&self, target: &str) -> Page {
        page(self.request("GET", target)).await
    }

    pub async fn post(&self, target: &str, form: &[(&str, &str)]) -> Page {
        page(self.request("POST", target).form(form)).await
    }

    pub async fn upload(&self, target: &str, form: Form) -> Page {
        page(self.request("POST", target).multipart(form)).await
    }
}

/// Sends a request and takes the answer in.
pub async fn page(request: reqwest::RequestBuilder) -> Page {
    let response = request.send().await.expect("an answer");
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let status = response.status().as_u16();
    let body = response.bytes().await.expect("the whole body").to_vec();
    Page { status, headers, body }
}

/// What two servers may differ in by right: their name, the clock, the framing of the connection, and
/// what the gateway adds to every answer.
/// The gateway does not pass on what the application runs on.
const OWN: [&str; 8] =
    ["date", "server", "connection", "keep-alive", "transfer-encoding", "content-length", "x-request-id", POWERED_BY];

/// PHP marks its answers with it; only nginx passes it on.
const POWERED_BY: &str = "x-powered-by";

/// The headers that must be equal: sorted, each with all its values in the order sent.
fn comparable(page: &Page, of_php: bool) -> BTreeMap<&str, Vec<String>> {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in page.headers.iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        let value = match name.as_str() {
            // The page of a redirect or an error that PHP did not make is each server's own.
            "content-type" | "cache-control" if is_own(page, of_php) => continue,
            // nginx says this of a whole file only.
            "accept-ranges" if page.status == 206 => continue,
            // Two names of one type, the older one in nginx's table.
            "content-type" => value.replace("application/javascript", "text/javascript"),
            // A validator is the server's own; that there is one is compared.
            "etag" if !of_php => "…".to_owned(),
            // `Expires` is the clock plus what `Max-Age` says.
            "set-cookie" if value.contains("Max-Age=") => {
                value.split("; ").filter(|part| !part.starts_with("expires=")).collect::<Vec<_>>().join("; ")
            }
            _ => value.clone(),
        };
        headers.entry(name).or_default().push(value);
    }
    headers
}

/// What differs between two answers, in words; empty when they are equal.
pub fn differences(one: &Page, other: &Page) -> Vec<String> {
    let mut found = Vec::new();
    if one.status != other.status {
        found.push(format!("status {} and {}", one.status, other.status));
    }
    let of_php = [one, other].iter().any(|page| page.header(POWERED_BY).is_some());
    let (headers, others) = (comparable(one, of_php), comparable(other, of_php));
    for name in headers.keys().chain(others.keys().filter(|name| !headers.contains_key(*name))) {
        let (value, another) = (headers.get(name), others.get(name));
        if value != another && !same_words(&format!("{value:?}"), &format!("{another:?}")) {
            found.push(format!("header {name}: {value:?} and {another:?}"));
        }
    }
    if one.body != other.body && !(is_own(one, of_php) && is_own(other, of_php)) {
        let (text, another) = (one.text(), other.text());
        if let Some((at, to)) = first_difference(&text, &another) {
            found.push(format!("body: {:?} and {:?}", around(&text, at), around(&another, to)));
        }
    }
    found
}

/// A redirect or an error that PHP did not make.
fn is_own(page: &Page, of_php: bool) -> bool {
    let redirects = page.status / 100 == 3 && page.header("location").is_some();
    (redirects || page.status >= 400) && !of_php
}

fn same_words(one: &str, other: &str) -> bool {
    first_difference(one, other).is_none()
}

/// Where two texts differ in something else than a nonce: byte offsets in each.
fn first_difference(one: &str, other: &str) -> Option<(usize, usize)> {
    let (mut words, mut others) = (words(one), words(other));
    loop {
        match (words.next(), others.next()) {
            (None, None) => return None,
            (Some((_, word)), Some((_, another))) if word == another || (is_nonce(word) && is_nonce(another)) => {}
            (word, another) => {
                return Some((word.map_or(one.len(), |(at, _)| at), another.map_or(other.len(), |(at, _)| at)));
            }
        }
    }
}

/// A text cut into runs of letters and digits and single other characters.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let run = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let length = if run == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { run };
        let word = (at, &rest[..length]);
        at += length;
        Some(word)
    })
}

/// WordPress's nonces: ten hexadecimal digits.
fn is_nonce(word: &str) -> bool {
    word.len() == 10 && word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn around(text: &str, at: usize) -> &str {
    let mut from = at.saturating_sub(60);
    let mut to = (at + 80).min(text.len());
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    while !text.is_char_boundary(to) {
        to += 1;
    }
    &text[from..to]
}
