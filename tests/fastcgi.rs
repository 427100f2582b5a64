//! PHP-FPM through the gateway: what PHP is told, what comes back, and which files are served beside it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{Answer, Connection, exchange, get};
use crate::support::gateway::Gateway;
use crate::support::php::Php;
use crate::support::redis::redis;
use crate::support::{eventually, fcgi, gateway, nginx, noise, php};

/// A gateway with everything of `php` behind it.
async fn in_front_of(php: &Php) -> Gateway {
    gateway().php(php).start().await
}

/// What the md5 of `bytes` is, as PHP sees it.
fn md5(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("md5sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("md5sum runs");
    child.stdin.take().expect("its input").write_all(bytes).expect("md5sum reads");
    let output = child.wait_with_output().expect("md5sum ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a sum").to_owned()
}

// --- What PHP is told ---

#[tokio::test]
async fn php_is_told_what_nginx_tells_it() {
    let php = php().start().await;
    let (gateway, nginx) = (in_front_of(&php).await, nginx(&php).await);
    let requests = [
        "GET /echo.php HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "GET /echo.php?a=1&b[]=2&c=%26%20%41+ HTTP/1.1\r\nHost: shop.test:8080\r\nAccept: a/b\r\n\r\n",
        "GET /echo.php?q=a/../b HTTP/1.1\r\nHost: shop.test\r\nCookie: a=1; b=%3D\r\nAuthorization: Basic dXNlcjpwYXNz\r\n\r\n",
        "GET /./x/..//echo.php HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: tést\r\nX-Empty:\r\n\r\n",
        "GET /%65cho.php HTTP/1.1\r\nHost: shop.test\r\nIf-None-Match: \"x\"\r\n\r\n",
        "POST /echo.php HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\na=1&b=2",
        "PUT /echo.php HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "PATCH /echo.php HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "OPTIONS /echo.php HTTP/1.1\r\nHost: shop.test\r\nOrigin: http://other.test\r\n\r\n",
        "GET /deep/er/?x=1 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "GET http://shop.test/echo.php?abs=1 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    ];
    for request in requests {
        let one = exchange(gateway.address(), request).await.expect("an answer").json();
        let other = exchange(nginx.address(), request).await.expect("an answer").json();
        assert_eq!(told(&one), told(&other), "{request}");
        for part in ["get", "post", "cookie", "length", "md5"] {
            assert_eq!(one[part], other[part], "{part} of {request}");
        }
    }
}

/// `$_SERVER`, less what two servers differ in by right.
fn told(echo: &Value) -> BTreeMap<String, String> {
    // The front controller of these scripts says less; it is compared as it is.
    let server: BTreeMap<String, String> =
        serde_json::from_value(echo.get("server").cloned().unwrap_or_else(|| serde_json::json!({}))).expect("strings");
    let own = [
        "REMOTE_PORT",
        "SERVER_PORT",
        "SERVER_NAME",
        "SERVER_SOFTWARE",
        "REQUEST_TIME",
        "REQUEST_TIME_FLOAT",
        "HTTP_X_REQUEST_ID",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_FORWARDED_HOST",
        "UNIQUE_ID",
        // What a client says of itself in `Authorization`, which nobody has proved.
        "REMOTE_USER",
        // Hop by hop: of the connection, not of the request.
        "HTTP_CONNECTION",
        "HTTP_TRANSFER_ENCODING",
        // Said by CONTENT_TYPE and CONTENT_LENGTH already.
        "HTTP_CONTENT_TYPE",
        "HTTP_CONTENT_LENGTH",
    ];
    let empty_means_absent = ["CONTENT_TYPE", "CONTENT_LENGTH", "PATH_INFO"];
    server
        .into_iter()
        .filter(|(name, value)| {
            let absent = value.is_empty() && empty_means_absent.contains(&name.as_str());
            !absent && !own.contains(&name.as_str())
        })
        .collect()
}

#[tokio::test]
async fn names_that_php_would_confuse_never_reach_it() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let request = "GET /echo.php HTTP/1.1\r\nHost: a.test\r\nX_Forwarded_For: 1.2.3.4\r\nX.Forwarded.For: 1.2.3.4\r\n\
         Content_Length: 5\r\nProxy: http://evil/\r\npRoXy: http://evil/\r\nX-Strangler-User: admin\r\n\
         x-strangler-session: s\r\nX-Fine: yes\r\n\r\n";
    let server = exchange(gateway.address(), request).await.expect("an answer").json()["server"].clone();
    for name in ["HTTP_PROXY", "HTTP_X_STRANGLER_USER", "HTTP_X_STRANGLER_SESSION", "HTTP_CONTENT_LENGTH"] {
        assert_eq!(server.get(name), None, "{name}");
    }
    assert_ne!(server["HTTP_X_FORWARDED_FOR"], "1.2.3.4", "a client says whom it forwards for");
    assert_eq!(server["HTTP_X_FINE"], "yes");
    assert_eq!(server.get("HTTPS"), None);
}

#[tokio::test]
async fn repeated_headers_are_joined_by_comma_and_cookies_by_semicolon() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let request =
        "GET /echo.php HTTP/1.1\r\nHost: a.test\r\nX-List: a\r\nX-List: b\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n";
    let echo = exchange(gateway.address(), request).await.expect("an answer").json();
    assert_eq!(echo["server"]["HTTP_X_LIST"], "a, b");
    assert_eq!(echo["server"]["HTTP_COOKIE"], "a=1; b=2");
    assert_eq!(echo["cookie"], serde_json::json!({"a": "1", "b": "2"}));
}

#[tokio::test]
async fn hop_by_hop_headers_and_those_named_by_connection_stay_at_the_gateway() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let request = "GET /echo.php HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n\
         Keep-Alive: 5\r\nTE: gzip\r\nTrailer: X\r\nProxy-Authorization: x\r\nProxy-Connection: y\r\n\r\n";
    let server = exchange(gateway.address(), request).await.expect("an answer").json()["server"].clone();
    for name in ["CONNECTION", "X_PRIVATE", "KEEP_ALIVE", "TE", "TRAILER", "PROXY_AUTHORIZATION", "PROXY_CONNECTION"] {
        assert_eq!(server.get(format!("HTTP_{name}")), None, "{name}");
    }
}

#[tokio::test]
async fn parameters_of_the_table_reach_php_and_win() {
    let php = php().start().await;
    let upstream = php.upstream("php = \"files\"\nparams = { APP_ENV = \"test\", SERVER_SOFTWARE = \"nginx/1.22.1\" }");
    let gateway = gateway().toml(upstream).toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await;
    let echo = get(gateway.address(), "/echo.php").await.json();
    assert_eq!(echo["server"]["APP_ENV"], "test");
    assert_eq!(echo["server"]["SERVER_SOFTWARE"], "nginx/1.22.1");
}

#[tokio::test]
async fn the_request_id_is_the_same_in_php_in_the_answer_and_in_the_record() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let answer = get(gateway.address(), "/echo.php").await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(answer.json()["server"]["HTTP_X_REQUEST_ID"], id.as_str());
    assert_eq!(gateway.until_record_of(&id).await["path"], "/echo.php");
}

// --- Bodies ---

#[tokio::test]
async fn a_form_and_an_upload_arrive_as_php_knows_them() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let form = gateway.request("POST", "/echo.php").form(&[("name", "Grüße & Küsse"), ("list[]", "1")]);
    let echo: Value = form.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(echo["post"], serde_json::json!({"name": "Grüße & Küsse", "list": ["1"]}));

    let picture = noise(300_000, 1);
    let part =
        reqwest::multipart::Part::bytes(picture.clone()).file_name("käfer.png").mime_str("image/png").expect("a type");
    let form = reqwest::multipart::Form::new().text("title", "a beetle").part("file", part);
    let upload = gateway.request("POST", "/echo.php").multipart(form).send().await.expect("an answer");
    let echo: Value = upload.json().await.expect("JSON");
    assert_eq!(echo["post"]["title"], "a beetle");
    assert_eq!(echo["files"]["file"], serde_json::json!({"name": "käfer.png", "size": 300_000, "md5": md5(&picture)}));
}

#[tokio::test]
async fn bodies_of_every_awkward_size_arrive_whole_declared_or_chunked() {
    let php = php().ini("post_max_size", "64M").start().await;
    let gateway = gateway().server("[server.limits]\nbody_bytes = \"32MiB\"").php(&php).start().await;
    for size in [0, 1, 8191, 65_527, 65_528, 65_535, 65_536, 65_537, 131_072, 131_073, 16 << 20] {
        let body = noise(size, 2);
        let sum = md5(&body);
        for chunked in [false, true] {
            let request = gateway.request("POST", "/echo.php").header("content-type", "application/octet-stream");
            let request = if chunked {
                let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
                    body.chunks(50_021).map(|piece| Ok(piece.to_vec())).collect();
                request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)))
            } else {
                request.body(body.clone())
            };
            let echo: Value = request.send().await.expect("an answer").json().await.expect("JSON");
            assert_eq!(
                (&echo["length"], &echo["md5"]),
                (&size.into(), &sum.as_str().into()),
                "{size} chunked={chunked}"
            );
            let declared = echo["server"]["CONTENT_LENGTH"].as_str().unwrap_or_default();
            assert!(
                declared == size.to_string() || (size == 0 && declared.is_empty()),
                "{size} chunked={chunked}: {declared}"
            );
            assert_eq!(echo["server"].get("HTTP_TRANSFER_ENCODING"), None);
        }
    }
}

#[tokio::test]
async fn a_body_comes_back_while_it_is_still_being_sent() {
    let php = php().ini("post_max_size", "64M").start().await;
    let gateway = gateway().server("[server.limits]\nbody_bytes = \"32MiB\"").php(&php).start().await;
    let body = noise(8 << 20, 3);
    let request = gateway.request("POST", "/mirror.php").header("content-type", "application/octet-stream");
    let back = request.body(body.clone()).send().await.expect("an answer").bytes().await.expect("the whole body");
    assert!(back == body, "{} bytes came back, or other ones", back.len());
}

#[tokio::test]
async fn large_answers_come_whole_with_and_without_a_length() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    for size in [0, 1, 8184, 65_528, 65_536, 1 << 20, 64 << 20] {
        for length in ["", "&length"] {
            let answer = get(gateway.address(), &format!("/big.php?bytes={size}{length}")).await;
            assert!(answer.complete, "{size}{length}");
            assert_eq!(answer.body.len(), size);
            assert_eq!(answer.header("x-md5"), Some(md5(&answer.body).as_str()), "{size}{length}");
            assert!(answer.header("content-length").is_none() || answer.header("transfer-encoding").is_none());
        }
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_an_answer_without_chunks() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let answer = exchange(gateway.address(), "GET /big.php?bytes=100000 HTTP/1.0\r\n\r\n").await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[tokio::test]
async fn events_arrive_when_php_flushes_them() {
    let php = php().ini("output_buffering", "0").start().await;
    let gateway = in_front_of(&php).await;
    let mut connection = Connection::open(gateway.address()).await;
    let started = Instant::now();
    connection.send("GET /stream.php?count=3&ms=600 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    connection.until("event 1").await;
    assert!(started.elapsed() < Duration::from_millis(500), "the first event was held back: {:?}", started.elapsed());
    connection.until("event 2").await;
    assert!(started.elapsed() < Duration::from_millis(1100), "the second event was held back: {:?}", started.elapsed());
    connection.until("event 3").await;
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let mut connection = Connection::open(gateway.address()).await;
    connection.send("POST /echo.php HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert!(connection.until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    connection.send("hello").await;
    let echo = connection.answer("POST").await.expect("an answer").json();
    assert_eq!(echo["length"], 5);
    assert_eq!(echo["server"].get("HTTP_EXPECT"), None);
}

// --- Answers ---

#[tokio::test]
async fn status_and_headers_pass_as_php_sent_them() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let answer = get(
        gateway.address(),
        "/answer.php?status=418&header[]=Set-Cookie:+a=1&header[]=Set-Cookie:+b=2&header[]=X-Odd:++spaced++\
         &header[]=Connection:+close&header[]=Keep-Alive:+3&header[]=Upgrade:+h2c&header[]=Trailer:+x\
         &header[]=X-Accel-Buffering:+no&body=teapot",
    )
    .await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "teapot"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("x-odd"), Some("spaced"));
    for name in ["status", "keep-alive", "upgrade", "trailer", "x-accel-buffering"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let redirect = get(gateway.address(), "/answer.php?header[]=Location:+/elsewhere").await;
    assert_eq!((redirect.status, redirect.header("location")), (302, Some("/elsewhere")));
    let own =
        get(gateway.address(), "/answer.php?status=503&header[]=Content-Type:+text/plain&body=closed+today").await;
    assert_eq!(
        (own.status, own.text().as_str()),
        (503, "closed today"),
        "an application's own error page passes untouched"
    );
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let mut connection = Connection::open(gateway.address()).await;
    for (method, target, status) in [
        ("HEAD", "/big.php?bytes=100000", 200),
        ("HEAD", "/big.php?bytes=100000&length", 200),
        ("GET", "/answer.php?status=204&body=ignored", 204),
        ("GET", "/answer.php?status=304&header[]=ETag:+x", 304),
        ("HEAD", "/answer.php?status=404&body=none", 404),
        ("GET", "/answer.php", 200),
    ] {
        connection.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = connection.answer(method).await.expect("an answer");
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(!matches!(status, 204 | 304) || answer.header("content-length").is_none_or(|n| n == "0"), "{answer:?}");
    }
    connection.send("GET /answer.php?body=last HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(connection.answer("GET").await.expect("an answer").text(), "last");
}

#[tokio::test]
async fn what_php_logs_stands_in_the_gateways_log_and_not_in_the_answer() {
    let php = php().ini("output_buffering", "0").ini("log_errors", "1").ini("error_log", "").start().await;
    let gateway = in_front_of(&php).await;
    let answer = get(gateway.address(), "/log.php?word=apricot").await;
    assert_eq!(answer.text(), "one two");
    gateway.until_logged("first line of apricot").await;
    gateway.until_logged("last line of apricot").await;
    assert!(!gateway.log().contains('\u{1b}'), "a script writes escape sequences into the operator's terminal");
    assert!(gateway.log().contains(answer.header("x-request-id").expect("an id")), "the lines name no request");

    let before = gateway.log().len();
    let flood = get(gateway.address(), "/log.php?word=flood&repeat=400000").await;
    assert_eq!(flood.text(), "one two");
    gateway.until_logged("first line of flood").await;
    assert!(
        gateway.log().len() - before < 64 << 10,
        "one request writes {} bytes into the log",
        gateway.log().len() - before
    );
}

#[tokio::test]
async fn a_session_of_php_lives_through_the_gateway() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    let first = get(gateway.address(), "/session.php").await;
    let cookie = first.header("set-cookie").expect("a cookie").split(';').next().expect("its pair").to_owned();
    assert_eq!(first.text(), "1");
    let request = format!("GET /session.php HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    assert_eq!(exchange(gateway.address(), &request).await.expect("an answer").text(), "2");
}

#[tokio::test]
async fn a_session_of_php_in_redis_lives_through_the_gateway() {
    let redis = redis().await;
    let path = format!("tcp://{}", redis.address());
    let php = php().ini("session.save_handler", "redis").ini("session.save_path", &path).start().await;
    let gateway = in_front_of(&php).await;
    let first = get(gateway.address(), "/session.php").await;
    let cookie = first.header("set-cookie").expect("a cookie").split(';').next().expect("its pair").to_owned();
    let request = format!("GET /session.php HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    assert_eq!(exchange(gateway.address(), &request).await.expect("an answer").text(), "2");
    assert!(redis.command(&["KEYS", "PHPREDIS_SESSION:*"]).contains("PHPREDIS_SESSION:"));
}

#[tokio::test]
async fn php_hands_over_a_file_it_has_checked_the_right_to() {
    let php = php().start().await;
    let protected = php.dir().join("protected");
    std::fs::create_dir(&protected).expect("a directory");
    let report = noise(200_000, 4);
    std::fs::write(protected.join("report 1.pdf"), &report).expect("a file");
    std::fs::write(php.dir().join("secret"), "SECRET").expect("a file");
    let upstream = php.upstream(&format!(
        "php = \"files\"\ninternal = {{ \"/protected/\" = {:?} }}",
        protected.display().to_string()
    ));
    let gateway = gateway().toml(upstream).toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await;

    for by in ["X-Accel-Redirect", "X-Sendfile"] {
        let file = if by == "X-Sendfile" {
            format!("{}/report+1.pdf", protected.display())
        } else {
            "/protected/report%25201.pdf".to_owned()
        };
        let target = format!("/accel.php?by={by}&file={file}");
        let answer = get(gateway.address(), &target).await;
        assert_eq!(answer.status, 200, "{by}: {answer:?}");
        assert!(answer.body == report, "{by}");
        assert_eq!(answer.header("content-type"), Some("application/pdf"), "{by}: PHP's own type stays");
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"report.pdf\""));
        assert_eq!((answer.header("x-accel-redirect"), answer.header("x-sendfile")), (None, None));
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nRange: bytes=10-19\r\n\r\n");
        let part = exchange(gateway.address(), request).await.expect("an answer");
        assert_eq!((part.status, &part.body[..]), (206, &report[10..20]), "{by}");
    }
    assert_ne!(get(gateway.address(), "/protected/report%201.pdf").await.body, report, "the client asks for it itself");
    for file in ["/protected/../secret", "/protected/%2e%2e/secret", "/protected/..%2fsecret", "../secret"] {
        for by in ["X-Accel-Redirect", "X-Sendfile"] {
            let answer = get(gateway.address(), &format!("/accel.php?by={by}&file={}", file.replace('%', "%25"))).await;
            assert!(!answer.text().contains("SECRET"), "{by} {file}");
        }
    }
    let outside = format!("/accel.php?by=X-Sendfile&file={}/secret", php.dir().display());
    assert!(!get(gateway.address(), &outside).await.text().contains("SECRET"));
}

// --- Files ---

#[tokio::test]
async fn files_beside_php_are_served_with_validators_and_ranges() {
    let php = php().start().await;
    let content = noise(100_000, 5);
    php.put("assets/app.css", "body {}");
    php.put("assets/data.bin", &content);
    let gateway = in_front_of(&php).await;
    let css = get(gateway.address(), "/assets/app.css").await;
    assert_eq!((css.status, css.text().as_str()), (200, "body {}"));
    assert!(css.header("content-type").is_some_and(|kind| kind.starts_with("text/css")));
    let (etag, modified) =
        (css.header("etag").expect("an ETag").to_owned(), css.header("last-modified").expect("a date").to_owned());

    let ask = async |target: &str, fields: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        exchange(gateway.address(), request).await.expect("an answer")
    };
    assert_eq!(ask("/assets/app.css", &format!("If-None-Match: {etag}")).await.status, 304);
    assert_eq!(ask("/assets/app.css", "If-None-Match: \"other\"").await.status, 200);
    assert_eq!(ask("/assets/app.css", &format!("If-Modified-Since: {modified}")).await.status, 304);
    assert_eq!(
        ask("/assets/app.css", &format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {modified}")).await.status,
        200
    );

    for (range, from, to) in [
        ("bytes=0-9", 0, 10),
        ("bytes=99990-", 99_990, 100_000),
        ("bytes=-5", 99_995, 100_000),
        ("bytes=5-999999", 5, 100_000),
    ] {
        let part = ask("/assets/data.bin", &format!("Range: {range}")).await;
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == content[from..to], "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {from}-{}/100000", to - 1).as_str()));
    }
    let beyond = ask("/assets/data.bin", "Range: bytes=100000-").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */100000")));
    for ignored in ["Range: lines=1-2", "Range: bytes=0-9\r\nIf-Range: \"other\""] {
        let whole = ask("/assets/data.bin", ignored).await;
        assert_eq!((whole.status, whole.body.len()), (200, 100_000), "{ignored}");
    }
    let head =
        exchange(gateway.address(), "HEAD /assets/data.bin HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("an answer");
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    let post =
        exchange(gateway.address(), "POST /assets/app.css HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let post = post.expect("an answer");
    assert_eq!(post.status, 405);
    assert!(post.header("allow").is_some_and(|allow| allow.contains("GET") && allow.contains("HEAD")), "{post:?}");
}

#[tokio::test]
async fn whatever_is_no_file_goes_to_the_front_controller() {
    let php = php().start().await;
    php.put("dir/index.php", "<?php echo 'dir/index.php ', $_SERVER['SCRIPT_NAME'];");
    php.put("plain/page.html", "<p>");
    let gateway = in_front_of(&php).await;
    let front = get(gateway.address(), "/no/such/page?x=1&y").await.json();
    assert_eq!(front["uri"], "/no/such/page?x=1&y");
    assert_eq!((&front["script"], &front["query"]), (&"/index.php".into(), &"x=1&y".into()));
    assert_eq!(get(gateway.address(), "/").await.json()["uri"], "/");
    assert_eq!(get(gateway.address(), "/index.php/a/b").await.json()["path_info"], "/a/b");
    assert_eq!(get(gateway.address(), "/dir/").await.text(), "dir/index.php /dir/index.php");
    let redirect = get(gateway.address(), "/dir?x=1").await;
    assert_eq!((redirect.status / 100, redirect.header("location")), (3, Some("/dir/?x=1")));
    assert_eq!(get(gateway.address(), "/a%20b/%C3%A4/?q=%41").await.json()["uri"], "/a%20b/%C3%A4/?q=%41");
}

#[tokio::test]
async fn only_the_front_controller_runs_where_the_table_says_so() {
    let php = php().start().await;
    let upstream = php.upstream("");
    let gateway = gateway().toml(upstream).toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await;
    assert_eq!(get(gateway.address(), "/anything").await.json()["front"], true);
    assert_eq!(get(gateway.address(), "/index.php").await.json()["front"], true);
    for target in ["/echo.php", "/echo.php/info", "/%65cho.php", "/echo.PHP"] {
        let answer = get(gateway.address(), target).await;
        assert_eq!(answer.status, 404, "{target}: {}", answer.text());
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_the_root_or_to_a_source() {
    let php = php().start().await;
    std::fs::write(php.dir().join("secret.txt"), "SECRET").expect("a file");
    for hidden in [
        ".env",
        ".git/config",
        ".htaccess",
        ".user.ini",
        "composer.json",
        "composer.lock",
        "dump.sql",
        "index.php.bak",
        "index.php~",
        ".index.php.swp",
        "sub/.env",
        "wp-config.php.old",
    ] {
        php.put(hidden, "SECRET");
    }
    php.put("lib.inc", "<?php /* SECRET */");
    php.put("page.phtml", "<?php /* SECRET */");
    php.put("source.phps", "<?php /* SECRET */");
    php.put("uploads/evil.jpg", "<?php echo 'SEC', 'RET';");
    std::os::unix::fs::symlink(php.dir().join("secret.txt"), php.root().join("link.txt")).expect("a link");
    std::os::unix::fs::symlink(php.dir(), php.root().join("linked")).expect("a link");
    let gateway = in_front_of(&php).await;

    let mut targets: Vec<String> = [
        "/.env",
        "/.git/config",
        "/.htaccess",
        "/.user.ini",
        "/composer.json",
        "/composer.lock",
        "/dump.sql",
        "/index.php.bak",
        "/index.php~",
        "/.index.php.swp",
        "/sub/.env",
        "/wp-config.php.old",
        "/lib.inc",
        "/page.phtml",
        "/source.phps",
        "/link.txt",
        "/linked/secret.txt",
        "/uploads/evil.jpg/x.php",
        "/uploads/evil.jpg%00.php",
        "/uploads/evil.jpg%0a.php",
        "/uploads/evil.jpg/.php",
        "/echo.php%20",
        "/echo.php.",
        "/echo.php%2e",
        "/echo.PHP",
        "/echo.phP/",
        "/%2e%65nv",
        "/sub/%2eenv",
        "/./.env",
        "//.env",
        "/sub/../.env",
        "/.env/",
        "/.env%20",
        "/.env/.",
    ]
    .map(str::to_owned)
    .to_vec();
    let ups = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%252e%252e",
        "..%00",
        "..%5c..",
        "..\\..",
        "%c0%ae%c0%ae",
        "..;",
        "....",
        "..%2f..",
        "%2e%2e%2f",
        "%ef%bc%8e%ef%bc%8e",
    ];
    for up in ups {
        for prefix in ["", "/sub", "/dir/x", "/uploads", "//"] {
            for end in ["secret.txt", "../secret.txt", "%2fsecret.txt", "//secret.txt"] {
                targets.push(format!("{prefix}/{up}/{end}"));
                targets.push(format!("{prefix}/{up}/{up}/{end}"));
            }
        }
    }
    let source = std::fs::read_to_string(php.root().join("echo.php")).expect("a script");
    let told = &source[..60];
    for target in &targets {
        let answer = get(gateway.address(), target).await;
        let text = answer.text();
        assert!(!text.contains("SECRET"), "{target} shows what must stay hidden");
        assert!(!text.contains("<?php") && !text.contains(told), "{target} shows a source");
        assert!(matches!(answer.status, 200 | 301 | 302 | 308 | 400 | 403 | 404), "{target}: {}", answer.status);
        if answer.status == 200 {
            assert!(
                text.contains("\"front\":true") || text.contains("\"server\":"),
                "{target} is answered by neither script"
            );
        }
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let request = format!("{method} /lib.inc HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(gateway.address(), request).await.expect("an answer");
        assert!(!answer.text().contains("SECRET"), "{method}");
    }
}

// --- Connections to the pool ---

#[tokio::test]
async fn kept_connections_answer_the_right_requests_and_make_way_for_others() {
    let php = php().children(2).start().await;
    let upstream = php.upstream_with_connections(2, "php = \"files\"\nkeepalive = 2");
    let gateway = gateway().toml(upstream).toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await;
    let clients = (0..8).map(|client| {
        let address = gateway.address();
        tokio::spawn(async move {
            for n in 0..50 {
                let body = format!("client-{client}-request-{n}");
                let answer = get(address, &format!("/answer.php?body={body}")).await;
                assert_eq!((answer.status, answer.text()), (200, body));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no answer went astray");
    }
}

#[tokio::test]
async fn a_kept_connection_is_used_again() {
    let server = fcgi(|mut call| async move {
        while let Some(request) = call.request().await {
            assert!(request.keep, "the gateway did not ask to keep the connection");
            call.reply("Content-Type: text/plain\r\n\r\nkept").await;
        }
    });
    let gateway = gateway().workers(1).toml(server.table("keepalive = 1\nconnections = 1")).start().await;
    for _ in 0..11 {
        assert_eq!(get(gateway.address(), "/").await.text(), "kept");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn work_after_the_answer_keeps_its_place_until_php_is_free() {
    let php = php().children(1).start().await;
    let mark = php.dir().join("mark");
    let upstream = php.upstream_with_connections(1, "php = \"files\"\nqueue = \"100ms\"");
    let gateway = gateway().toml(upstream).toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await;
    let started = Instant::now();
    let answer = get(gateway.address(), &format!("/finish.php?ms=1500&mark={}", mark.display())).await;
    assert_eq!(answer.text(), "answered");
    assert!(started.elapsed() < Duration::from_millis(1200), "the answer waited for work the client does not wait for");
    let busy = get(gateway.address(), "/answer.php").await;
    assert_eq!(busy.status, 503, "the only PHP process still works: {}", busy.text());
    eventually("the place is free again", || async {
        (get(gateway.address(), "/answer.php").await.status == 200).then_some(())
    })
    .await;
    assert!(mark.exists());
}

#[tokio::test]
async fn php_notices_a_client_that_left_or_finishes_where_the_table_says_so() {
    let php = php().ini("output_buffering", "0").start().await;
    for (policy, said) in [("close", "noticed"), ("finish", "never noticed")] {
        let mark = php.dir().join(policy);
        let upstream = php.upstream(&format!("php = \"files\"\non_client_abort = \"{policy}\""));
        let gateway = gateway().toml(upstream).toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await;
        let mut client = Connection::open(gateway.address()).await;
        client.send(format!("GET /abort.php?mark={} HTTP/1.1\r\nHost: a\r\n\r\n", mark.display())).await;
        client.until("....").await;
        client.reset();
        let text = eventually("the script has ended", || async {
            std::fs::read_to_string(&mark).ok().filter(|text| !text.is_empty())
        })
        .await;
        assert_eq!(text, said, "{policy}");
        let record = gateway.until_records(1).await.remove(0);
        assert_eq!(record["ended"], "client_gone", "{record}");
    }
}

#[tokio::test]
async fn the_status_page_of_the_pool_is_not_for_clients() {
    let php = php().start().await;
    let gateway = in_front_of(&php).await;
    for target in ["/fpm-status", "/fpm-status?full", "/%66pm-status"] {
        let answer: Answer = get(gateway.address(), target).await;
        assert!(!answer.text().contains("active processes"), "{target}");
    }
}
