//! The dashboard as an operator uses it: a real browser on the admin port of a real gateway.
//!
//! A browser takes longer to start than a story to tell, so that each test tells several.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};

use crate::support::browser::{Browser, DOWN, ENTER, ESCAPE, TAB, browser};
use crate::support::gateway::Gateway;
use crate::support::shop::shop;
use crate::support::upstream::{service, upstream};
use crate::support::{eventually, gateway, repository};

/// A route that both sides can serve.
fn both(name: &str, path: &str) -> String {
    format!(
        "[[route]]\nname = '{name}'\npath = '{path}'\nlegacy = \"one\"\nnew = \"other\"\nserve = \"legacy\" # mine\n"
    )
}

/// The row of a route.
fn row(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('#body tr')].find((row) => row.querySelector('.name')?.innerText === '{name}')"
    )
}

/// A route has the focus by its link.
async fn focused(browser: &Browser, name: &str) {
    browser.until(&format!("document.activeElement === {}?.querySelector('a')", row(name))).await;
}

#[tokio::test]
async fn an_operator_watches_flips_and_mends_on_the_page() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let other = service(Router::new().fallback(get(|| async { "new" }))).await;
    let gateway = gateway()
        .toml(upstream("one", &[one.url()], ""))
        .toml(upstream("other", &[other.url()], ""))
        .toml(both("cart", "/cart"))
        .toml(both("order", "/orders/{id}"))
        .start()
        .await;
    let browser = browser().await;
    browser.open(&gateway.dashboard()).await;
    browser.until_text("#state", "live").await;
    assert_eq!(browser.script("return location.hash", json!([])).await, "#/", "the token stays in no address");

    live_numbers_move_under_load(&gateway, &browser).await;
    a_flip_by_button_reaches_the_file_and_the_traffic(&gateway, &browser).await;
    a_broken_file_shows_its_faults_until_it_is_mended(&gateway, &browser).await;
    a_flip_is_refused_when_the_file_changed_meanwhile(&gateway, &browser).await;
    a_route_is_opened_flipped_and_closed_with_the_keyboard_alone(&gateway, &browser).await;
    the_skip_link_leads_to_the_table_and_changes_nothing(&gateway, &browser).await;
    a_route_is_a_link_and_its_page_says_what_the_figures_stand_on(&gateway, &browser).await;
    another_window_begins_another_trend(&gateway, &browser).await;
    whoever_cannot_be_served_is_told_why(&gateway, &browser).await;
    what_is_shown_goes_stale_with_the_gateway(gateway, &browser).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

async fn live_numbers_move_under_load(gateway: &Gateway, browser: &Browser) {
    browser.until_text("#state", "live").await;
    let qps = format!("parseFloat({}.querySelector('.qps.legacy').innerText)", row("cart"));
    for _ in 0..20 {
        assert_eq!(gateway.ask("/cart").await, (200, "legacy".to_owned()));
    }
    browser.until(&format!("{qps} > 0")).await;
    browser.until(&format!("{}.querySelector('.p99.legacy').innerText.endsWith('ms')", row("cart"))).await;
    let before = browser.script(&format!("return {qps}"), json!([])).await;
    for _ in 0..400 {
        gateway.get("/cart").await;
    }
    browser.until(&format!("{qps} > {before}")).await;
}

async fn a_flip_by_button_reaches_the_file_and_the_traffic(gateway: &Gateway, browser: &Browser) {
    let before = gateway.read_table();
    browser.script(&format!("{}.querySelector('button.flip').click()", row("cart")), json!([])).await;
    let words = browser.text("#flip").await;
    let file = gateway.table().display().to_string();
    assert!(
        words.contains(&file) && words.contains("serve = \"legacy\" → \"new\"") && words.contains("other"),
        "{words}"
    );
    assert_eq!(gateway.read_table(), before, "nothing happens before it is confirmed");
    browser.click("#flip button[type=submit]").await;
    browser.until_text("#said", "cart: legacy → new").await;
    assert_eq!(gateway.read_table(), before.replacen("\"legacy\" # mine", "\"new\" # mine", 1));
    eventually("the new side serves", || async { (gateway.ask("/cart").await.1 == "new").then_some(()) }).await;
    browser.until(&format!("{}.querySelector('.side').innerText === 'new'", row("cart"))).await;
    browser.until(&format!("{}.querySelector('.qps.new').innerText !== '–'", row("cart"))).await;
}

async fn a_broken_file_shows_its_faults_until_it_is_mended(gateway: &Gateway, browser: &Browser) {
    let good = gateway.read_table();
    gateway.write_table(&good.replacen("serve = \"new\" # mine", "serve = \"<b>nwe</b>\" # mine", 1));
    browser.until_text("#rejected", "was refused").await;
    let faults = browser.text("#faults").await;
    assert!(faults.contains("serve = \"<b>nwe</b>\" # mine") && faults.contains("^^^^"), "{faults}");
    assert_eq!(gateway.ask("/cart").await.1, "new", "the running table stays in force");
    browser.script(&format!("{}.querySelector('button.flip').click()", row("order")), json!([])).await;
    browser.click("#flip button[type=submit]").await;
    browser.until_text("#flip .problem", "the file on disk has faults; mend it first").await;
    // Wrapped, a line would leave its carets under another word.
    browser.until_text("#flip .problem pre", "^^^^").await;
    browser.until("getComputedStyle(document.querySelector('#flip .problem pre')).whiteSpace === 'pre'").await;
    browser.press(ESCAPE).await;
    gateway.write_table(&good);
    browser.until("document.querySelector('#rejected').hidden").await;
}

async fn a_flip_is_refused_when_the_file_changed_meanwhile(gateway: &Gateway, browser: &Browser) {
    browser.script(&format!("{}.querySelector('button.flip').click()", row("order")), json!([])).await;
    let generation = gateway.generation().await;
    gateway.edit(|text| format!("{text}# by somebody else\n"));
    let edited = gateway.read_table();
    browser.click("#flip button[type=submit]").await;
    browser.until_text("#flip .problem", "has changed since you looked").await;
    assert_eq!(gateway.read_table(), edited);
    browser.press(ESCAPE).await;
    browser.until("!document.querySelector('dialog[open]')").await;
    let generation = gateway.until_newer(generation).await;
    browser.until_text("#table-state", &format!("generation {generation},")).await;
}

async fn a_route_is_opened_flipped_and_closed_with_the_keyboard_alone(gateway: &Gateway, browser: &Browser) {
    browser.open(&gateway.dashboard_at("/")).await;
    let generation = gateway.generation().await;
    browser.until_text("#table-state", &format!("generation {generation},")).await;
    browser.press("/").await;
    browser.press("ord").await;
    browser.until("document.querySelectorAll('#body tr:not(.spacer)').length === 1").await;
    browser.press(DOWN).await;
    focused(browser, "order").await;
    browser.press(ENTER).await;
    browser.until_text("#route-title", "order").await;
    assert_eq!(browser.script("return location.hash", json!([])).await, "#/route/order?q=ord");
    browser.until("document.activeElement.id === 'route-title'").await;
    browser.press(ESCAPE).await;
    browser.until("document.querySelector('#route').hidden").await;
    focused(browser, "order").await;

    browser.press("f").await;
    browser.until("document.querySelector('#flip').open").await;
    browser.press(ENTER).await;
    browser.until_text("#said", "order: legacy → new").await;
    eventually("the new side serves", || async { (gateway.ask("/orders/7").await.1 == "new").then_some(()) }).await;
    focused(browser, "order").await;
}

async fn the_skip_link_leads_to_the_table_and_changes_nothing(gateway: &Gateway, browser: &Browser) {
    browser.open(&gateway.dashboard_at("/route/cart?q=ord&window=10m")).await;
    browser.until_text("#route .figures", "points").await;
    browser.until(&row("order")).await;
    browser.press(TAB).await;
    browser.until("document.activeElement.id === 'skip'").await;
    browser.press(ENTER).await;
    focused(browser, "order").await;
    assert_eq!(browser.script("return location.hash", json!([])).await, "#/route/cart?q=ord&window=10m");
    assert_eq!(browser.text("#route-title").await, "cart");
}

async fn a_route_is_a_link_and_its_page_says_what_the_figures_stand_on(gateway: &Gateway, browser: &Browser) {
    browser.open(&gateway.dashboard_at("/?window=10m")).await;
    let link = browser.until(&format!("{}?.querySelector('a').getAttribute('href')", row("cart"))).await;
    assert_eq!(link, "#/route/cart?window=10m");
    browser.until_text(".legend", "≈ no difference beyond chance").await;
    let left_alone = format!(
        "let taken; addEventListener('click', (event) => {{ taken = event.defaultPrevented; event.preventDefault(); }}, {{ once: true }}); \
         {}.querySelector('a').dispatchEvent(new MouseEvent('click', {{ ctrlKey: true, bubbles: true, cancelable: true }})); \
         return !taken && document.querySelector('#route').hidden",
        row("cart")
    );
    assert_eq!(browser.script(&left_alone, json!([])).await, true, "another tab is the browser's to open");

    browser.click("#body a.name").await;
    browser.until_text("#route-title", "cart").await;
    let compared = gateway.admin_json("/api/compare?window=10m").await;
    let measured = &compared["routes"][0]["sides"]["legacy"]["measured"];
    browser.until_text("#route .measured", &measured.to_string()).await;
    browser.until_text("#route .apart", "0").await;
    let reason = format!("P99 needs 368 requests on each side; legacy has {measured}, new has");
    browser.until_text("#route .reasons", &reason).await;

    browser.open(&gateway.dashboard_at("/route/nosuch")).await;
    browser.until_text("#route .problem", "There is no route \"nosuch\"").await;
    browser.until("[...document.querySelectorAll('#route h3')].every((one) => one.offsetParent === null)").await;
}

async fn another_window_begins_another_trend(gateway: &Gateway, browser: &Browser) {
    browser.open(&gateway.dashboard_at("/")).await;
    let points =
        format!("({}?.querySelector('.line.new').getAttribute('d') ?? '').split(/[ML]/).length - 1", row("cart"));
    browser.until(&format!("{points} >= 4")).await;
    browser.script("document.querySelector('#window button:last-child').click()", json!([])).await;
    browser.until(&format!("{points} < 3")).await;
}

async fn whoever_cannot_be_served_is_told_why(gateway: &Gateway, browser: &Browser) {
    browser.open("about:blank").await;
    // The place that the page had is free once its connection is seen to be gone.
    let mut watching = Vec::new();
    while watching.len() < 32 {
        let answer = gateway.admin_request("GET", "/api/events").send().await.expect("an answer");
        if answer.status() == 200 {
            watching.push(answer);
        }
    }
    browser.open(&format!("http://{}/#token=%zz", gateway.admin())).await;
    browser.until_text("#state", "refused: too many listen already").await;
    browser.until_text("#state-said", "refused").await;
    drop(watching);
    browser.until_text("#state", "live").await;
    browser.until_text("#state-said", "live").await;
    assert_eq!(browser.script("return location.hash", json!([])).await, "#/", "a token that is none is forgotten");
}

async fn what_is_shown_goes_stale_with_the_gateway(gateway: Gateway, browser: &Browser) {
    drop(gateway);
    browser.until_text("#state", "stale").await;
    assert_eq!(browser.text("#state-said").await, "stale", "what changes every second is not said aloud");
}

#[tokio::test]
async fn an_open_page_learns_the_table_of_a_gateway_that_was_started_again() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let started = async |name: &str, path: &str, admin: SocketAddr| {
        let upstreams = upstream("one", &[one.url()], "") + &upstream("other", &[one.url()], "");
        gateway().admin_at(admin).toml(upstreams).toml(both(name, path)).start().await
    };
    let flippable = |name: &str| format!("{}?.querySelector('button.flip:not([hidden])') !== null", row(name));
    let before = started("cart", "/cart", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let browser = browser().await;
    browser.open(&before.dashboard()).await;
    browser.until(&format!("{} && {}", row("cart"), flippable("cart"))).await;

    let admin = before.admin();
    drop(before);
    let after = started("basket", "/basket", admin).await;
    assert_eq!(after.generation().await, 1, "it counts from the beginning");
    browser.until(&format!("{} && {}", row("basket"), flippable("basket"))).await;
    browser.until_text("#body .path", "/basket").await;
    browser.until_text("#count", "1 route:").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_thousand_routes_stay_smooth_and_names_that_look_like_html_stay_text() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let hostile = "<img src=x onerror=alert(1)>&\"</td>";
    let mut routes: String =
        (0..1000).map(|number| both(&format!("route-{number}"), &format!("/r/{number}"))).collect();
    routes.push_str(&both(hostile, "/hostile"));
    let gateway = gateway()
        .toml(upstream("one", &[one.url()], ""))
        .toml(upstream("other", &[one.url()], ""))
        .toml(routes)
        .start()
        .await;
    let browser = browser().await;

    let started = Instant::now();
    browser.open(&gateway.dashboard_at("/route/route-777")).await;
    browser.until_text("#route-title", "route-777").await;
    browser.until_text("#count", "1,001 routes").await;
    assert!(started.elapsed() < Duration::from_secs(10), "a deep link took {:?}", started.elapsed());
    browser.until_text("#route .serving", "legacy").await;
    browser.press(ESCAPE).await;

    let built = browser.script("return document.querySelectorAll('#body tr').length", json!([])).await;
    assert!(built.as_u64().unwrap() < 100, "{built} rows were built");
    let took = browser
        .script(
            "const started = performance.now(); for (let i = 1; i <= 20; i++) { scrollTo(0, i * 2000); \
             dispatchEvent(new Event('scroll')); document.body.offsetHeight; } return performance.now() - started",
            json!([]),
        )
        .await;
    assert!(took.as_f64().unwrap() < 2000.0, "scrolling took {took} ms");
    browser.script("scrollTo(0, document.body.scrollHeight)", json!([])).await;
    browser.until(&row("route-999")).await;

    browser.open(&gateway.dashboard_at("/?q=onerror&sort=-name")).await;
    browser.until_text("#body .name", hostile).await;
    assert_eq!(browser.until("document.querySelector('th.name').getAttribute('aria-sort')").await, "descending");
    browser.click("#body .name").await;
    browser.until_text("#route-title", hostile).await;
    browser.until_text("#route .serving", "legacy").await;
    let smuggled = browser.script("return document.querySelectorAll('#body img, #route img').length", json!([])).await;
    assert_eq!(smuggled, 0);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn the_port_changes_nothing_for_who_has_no_token_or_is_a_page_of_somebody_else() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let gateway = gateway()
        .toml(upstream("one", &[one.url()], ""))
        .toml(upstream("other", &[one.url()], ""))
        .toml(both("cart", "/cart"))
        .start()
        .await;
    let before = gateway.read_table();
    let order = |headers: &[(&str, &str)]| {
        let mut request = gateway.admin_request("POST", "/api/routes/cart/serve").json(&json!({ "serve": "new" }));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    let bearer = format!("Bearer {}", gateway.admin_token());
    assert_eq!(order(&[]).await, 401);
    assert_eq!(order(&[("authorization", "Bearer 00000000000000000000000000000000")]).await, 401);
    assert_eq!(order(&[("authorization", &bearer), ("origin", "https://evil.example")]).await, 403);
    assert_eq!(order(&[("authorization", &bearer), ("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(order(&[("authorization", &bearer), ("host", "evil.example")]).await, 403);
    assert_eq!(gateway.read_table(), before);
    assert_eq!(order(&[("authorization", &bearer)]).await, 200);
    assert_eq!(gateway.read_table(), before.replace("serve = \"legacy\" # mine", "serve = \"new\" # mine"));
    assert!(!gateway.log().contains(gateway.admin_token()), "the token is in no log");

    let shown: Value = gateway.admin_json("/api/routes").await;
    assert_eq!(shown["file"], json!(gateway.table().display().to_string()));
}

/// With `PICTURES=1` this writes docs/images; the shop is then used for longer, so that there is more to see.
#[tokio::test]
async fn the_page_fits_desk_and_phone_in_light_and_dark() {
    let pictures = std::env::var_os("PICTURES").map(|_| repository("docs/images"));
    let shop = shop().await;
    let browser = browser().await;
    let screen = async |width: u32, height: u32, scale: u32, theme: &str| {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": scale > 1 });
        browser.devtools("Emulation.setDeviceMetricsOverride", screen).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        browser.devtools("Emulation.setEmulatedMedia", features).await;
    };
    let fits = async |what: &str| {
        let wide = "return Math.max(...['html', '#route'].map((one) => document.querySelector(one)) \
                    .map((one) => one.scrollWidth - one.clientWidth))";
        let beyond = browser.script(wide, json!([])).await.as_i64().expect("a number");
        assert!(beyond <= 0, "{what}: {beyond} pixels are out of sight");
    };
    let seen = async |name: &str| {
        fits(name).await;
        if let Some(folder) = &pictures {
            browser.picture(&folder.join(name)).await;
        }
    };
    let span = Duration::from_secs(if pictures.is_some() { 28 } else { 1 });
    screen(1440, 700, 1, "light").await;
    browser.open(&shop.legacy.dashboard_at("/?sort=-qps.new")).await;
    use_the_shop(&shop.legacy, span).await;
    shop.legacy.edit(|text| {
        ["products", "product", "orders", "sales"].iter().fold(text.to_owned(), |text, name| {
            let (before, after) = text.split_once(&format!("name = \"{name}\"")).expect("a route of the shop");
            format!("{before}name = \"{name}\"{}", after.replacen("\"legacy\"", "\"new\"", 1))
        })
    });
    use_the_shop(&shop.legacy, span).await;
    browser.until(&format!("{}.querySelector('.qps.new').innerText !== '–'", row("products"))).await;
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.script(ground, json!([])).await;
    seen("dashboard-light.png").await;
    for width in [390, 800, 1024, 1280, 1440] {
        screen(width, 900, 1, "light").await;
        browser.until(&format!("innerWidth === {width} && {}", row("products"))).await;
        fits(&format!("the table at {width}")).await;
        let name = format!("return {}.querySelector('.route').offsetWidth", row("products"));
        let name = browser.script(&name, json!([])).await.as_u64().expect("a number");
        assert!(name >= 160, "at {width} the name has {name} pixels");
    }

    screen(1440, 960, 1, "dark").await;
    browser.open(&shop.legacy.dashboard_at("/route/products")).await;
    use_the_shop(&shop.legacy, span / 2).await;
    browser.until("document.querySelectorAll('#route canvas').length === 2").await;
    assert_ne!(browser.script(ground, json!([])).await, light);
    for side in ["legacy", "new"] {
        let slowest = format!("document.querySelectorAll('#route [aria-label^=Slowest] .{side}').length === 5");
        browser.until(&slowest).await;
    }
    browser.until("/^\\d\\d:/.test(document.querySelector('#route .u-value').innerText)").await;
    seen("dashboard-dark.png").await;

    browser.open(&shop.legacy.dashboard_at("/route/pages")).await;
    browser.until_text("#route .apart", "unasked").await;
    screen(390, 844, 2, "light").await;
    browser.until("innerWidth === 390").await;
    fits("a route on a phone").await;
    browser.until("document.querySelector('#route [aria-label^=Slowest]').tabIndex === 0").await;
    let beside = "const [title, close] = ['#route-title', '#route .close'].map((one) => document.querySelector(one).getBoundingClientRect()); \
                  return close.left > title.left && close.top < title.bottom";
    assert_eq!(browser.script(beside, json!([])).await, true, "the page is closed beside its title");
    browser.open(&shop.legacy.dashboard_at("/?sort=-qps.new")).await;
    browser.until(&row("products")).await;
    seen("dashboard-phone.png").await;
    let names = "const sort = document.getElementById('sort'); sort.value = 'name'; sort.dispatchEvent(new Event('change')); \
                 return [sort.offsetHeight > 0, ...[...document.querySelectorAll('#body .name')].map((one) => one.innerText)]";
    let names = browser.script(names, json!([])).await;
    let names = names.as_array().expect("a list");
    assert_eq!(names[0], true, "the choice is in sight");
    assert!(names[1..].is_sorted_by_key(|name| name.as_str().expect("a name").to_lowercase()), "{names:?}");
    let times = "return import('/format.js').then(({ times }) => [0, 0.0042, 0.042, 0.42, 4.2, 42].map(times))";
    let times = browser.script(times, json!([])).await;
    assert_eq!(times, json!(["0.00×", "0.0042×", "0.042×", "0.42×", "4.20×", "42.0×"]));
    browser.close().await;
}

/// A few customers: most look at products, some at pages, one asks for the report now and then.
async fn use_the_shop(gateway: &Gateway, span: Duration) {
    let ends = Instant::now() + span;
    let customer = async |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        while Instant::now() < ends {
            let path = match random.u32(..100) {
                0..45 => "/api/v1/products".to_owned(),
                45..80 => format!("/api/v1/products/{}", random.u32(1..6)),
                80..88 => "/".to_owned(),
                88..92 => "/assets/shop.css".to_owned(),
                92..96 => "/api/v1/orders".to_owned(),
                96..99 => "/health".to_owned(),
                _ => "/reports/sales".to_owned(),
            };
            gateway.ask(&path).await;
            tokio::time::sleep(Duration::from_millis(random.u64(5..120))).await;
        }
    };
    tokio::join!(customer(1), customer(2), customer(3), customer(4), customer(5));
}
