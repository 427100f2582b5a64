//! The handler by itself: with a scripted WeChat, and a store in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Mutex;

use ::http::StatusCode;
use ::http::header::{AUTHORIZATION, RETRY_AFTER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tower_service::Service as _;

use super::*;

const SECRET: &str = "the app's s3cret/+=";
const SESSION_KEY: &str = "HyVFkGl5F5OQWJZZaNzBBg==";

/// A stand-in for api.weixin.qq.com. It answers as many questions as it has permits.
#[derive(Clone)]
struct Wechat {
    asked: Rc<RefCell<Vec<String>>>,
    permits: Rc<Semaphore>,
    base: String,
}

impl Wechat {
    async fn start(permits: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let wechat = Self { asked: Rc::default(), permits: Rc::new(Semaphore::new(permits)), base };
        let serving = wechat.clone();
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let wechat = serving.clone();
                spawn_local(async move {
                    let mut head = Vec::new();
                    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                        let question = String::from_utf8(head.drain(..end + 4).collect()).unwrap();
                        let answer = wechat.answer(question.lines().next().unwrap()).await;
                        let length = answer.len();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{answer}"
                        );
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        wechat
    }

    async fn answer(&self, line: &str) -> String {
        self.asked.borrow_mut().push(line.to_owned());
        self.permits.acquire().await.unwrap().forget();
        let code = line.split("js_code=").nth(1).unwrap().split('&').next().unwrap();
        match code.split_once('-') {
            Some(("good", name)) => format!(r#"{{"openid":"o-{name}","session_key":"{SESSION_KEY}"}}"#),
            Some(("known", name)) => {
                format!(r#"{{"openid":"o-{name}","unionid":"u-{name}","session_key":"{SESSION_KEY}"}}"#)
            }
            Some(("err", errcode)) => format!(r#"{{"errcode":{errcode},"errmsg":"no"}}"#),
            _ => "nonsense".to_owned(),
        }
    }

    fn settings(&self, user: User) -> Settings {
        Settings {
            appid: "wx1".to_owned(),
            secret: SECRET.to_owned(),
            api: Api::new(&self.base).unwrap(),
            connect: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            user,
            idle: Duration::from_secs(7200),
            lifetime: Duration::from_secs(30 * 86_400),
        }
    }
}

/// Sessions by id: the user, the login, how long it is kept.
type Begun = HashMap<String, (String, Login, Duration)>;

/// A store that can be told to fail.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Begun>>, Arc<std::sync::atomic::AtomicBool>);

impl Kept {
    fn users(&self) -> Vec<String> {
        self.0.lock().unwrap().values().map(|(user, ..)| user.clone()).collect()
    }

    fn fails(&self) -> Result<(), BoxError> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) { Err("the store is down".into()) } else { Ok(()) }
    }
}

impl Sessions for Kept {
    fn presented(&self, headers: &HeaderMap) -> Option<String> {
        let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        Some(id_of(token).unwrap_or_else(|| token.to_owned()))
    }

    async fn begin(&self, id: &str, user: &str, login: &Login, ttl: Duration) -> Result<(), BoxError> {
        self.fails()?;
        self.0.lock().unwrap().insert(id.to_owned(), (user.to_owned(), login.clone(), ttl));
        Ok(())
    }

    async fn end(&self, id: &str) -> Result<(), BoxError> {
        self.fails()?;
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

type Asked = Service<Kept>;

async fn ask(service: &Asked, method: &str, token: Option<&str>, body: &str) -> (StatusCode, serde_json::Value) {
    let mut request = Request::builder().method(method);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = service.clone().call(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = answer.status();
    assert_eq!(answer.headers().contains_key(RETRY_AFTER), status == StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn log_in(service: &Asked, code: &str) -> (u16, i64) {
    let (status, answer) = ask(service, "POST", None, &format!(r#"{{"code":"{code}"}}"#)).await;
    (status.as_u16(), answer["code"].as_i64().unwrap())
}

async fn token_for(service: &Asked, former: Option<&str>, code: &str) -> String {
    let (status, answer) = ask(service, "POST", former, &format!(r#"{{"code":"{code}"}}"#)).await;
    assert_eq!((status, &answer["code"], &answer["message"]), (StatusCode::OK, &0.into(), &"ok".into()), "{answer}");
    assert_eq!(answer["data"]["expires_in"], 7200);
    answer["data"]["token"].as_str().unwrap().to_owned()
}

fn on_a_worker(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap().block_on(test);
}

async fn service() -> (Asked, Kept, Wechat) {
    let (wechat, kept) = (Wechat::start(1000).await, Kept::default());
    (Service::new(wechat.settings(User::Openid), kept.clone()).unwrap(), kept, wechat)
}

#[test]
fn a_code_becomes_a_session_whose_token_only_the_client_has() {
    on_a_worker(async {
        let (service, kept, wechat) = service().await;
        let token = token_for(&service, None, "good-anna").await;
        let sessions = kept.0.lock().unwrap().clone();
        let (id, (user, login, ttl)) = sessions.iter().next().unwrap();
        assert_eq!(
            (id_of(&token).as_ref(), &**user, login.openid(), login.unionid()),
            (Some(id), "o-anna", "o-anna", None)
        );
        assert_eq!(
            (login.session_key(), *ttl, login.expires - login.created),
            (SESSION_KEY, Duration::from_secs(7200), 2_592_000)
        );
        assert_eq!(
            wechat.asked.borrow()[0],
            "GET /sns/jscode2session?appid=wx1&secret=the%20app%27s%20s3cret%2F%2B%3D&js_code=good-anna&grant_type=authorization_code HTTP/1.1"
        );
    });
}

#[test]
fn every_refusal_of_wechat_has_its_answer() {
    on_a_worker(async {
        let (service, kept, _wechat) = service().await;
        for (errcode, answer) in [
            ("40029", (401, 40104)),
            ("40163", (401, 40104)),
            ("40226", (403, 40302)),
            ("45011", (503, 50306)),
            ("-1", (503, 50306)),
            ("40013", (500, 50003)),
            ("40125", (500, 50003)),
            ("99999", (503, 50306)),
        ] {
            assert_eq!(log_in(&service, &format!("err-{errcode}")).await, answer, "{errcode}");
        }
        assert_eq!(log_in(&service, "nonsense").await, (503, 50306));
        assert_eq!(kept.users(), [""; 0]);
    });
}

#[test]
fn a_code_is_asked_about_once_however_often_it_comes() {
    on_a_worker(async {
        let (wechat, kept) = (Wechat::start(0).await, Kept::default());
        let service = Service::new(wechat.settings(User::Openid), kept.clone()).unwrap();
        let both = async {
            let first = spawn_local({
                let service = service.clone();
                async move { token_for(&service, None, "good-a").await }
            });
            let second = spawn_local({
                let service = service.clone();
                async move { token_for(&service, None, "good-a").await }
            });
            while wechat.asked.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            wechat.permits.add_permits(1000);
            (first.await.unwrap(), second.await.unwrap())
        };
        let (first, second) = both.await;
        assert_eq!(first, second);
        assert_eq!(log_in(&service, "good-a").await, (401, 40104), "it is used up");
        assert_eq!(log_in(&service, "err-40029").await, (401, 40104));
        assert_eq!(log_in(&service, "err-40029").await, (401, 40104));
        assert_eq!(log_in(&service, "err--1").await, (503, 50306));
        assert_eq!(log_in(&service, "err--1").await, (503, 50306));
        assert_eq!(wechat.asked.borrow().len(), 4, "{:?}", wechat.asked.borrow());
        assert_eq!(kept.users(), ["o-a"]);
    });
}

#[test]
fn a_client_that_leaves_does_not_take_its_code_with_it() {
    on_a_worker(async {
        let (wechat, kept) = (Wechat::start(0).await, Kept::default());
        let service = Service::new(wechat.settings(User::Openid), kept.clone()).unwrap();
        let request = Request::post("/").body(Body::from(r#"{"code":"good-a"}"#)).unwrap();
        let gone = service.clone().call(request);
        while wechat.asked.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        drop(gone);
        let second = spawn_local(async move { token_for(&service, None, "good-a").await });
        wechat.permits.add_permits(1);
        let token = second.await.unwrap();
        assert!(kept.0.lock().unwrap().contains_key(&id_of(&token).unwrap()));
        assert_eq!(wechat.asked.borrow().len(), 1);
    });
}

#[test]
fn logging_in_anew_ends_the_former_session_and_logging_out_the_last() {
    on_a_worker(async {
        let (service, kept, _wechat) = service().await;
        let first = token_for(&service, None, "good-a").await;
        let second = token_for(&service, Some(&first), "good-b").await;
        assert_eq!(kept.users(), ["o-b"]);
        let (status, answer) = ask(&service, "DELETE", Some(&second), "").await;
        assert_eq!((status, &answer["code"], &answer["data"]), (StatusCode::OK, &0.into(), &serde_json::Value::Null));
        assert_eq!(kept.users(), [""; 0]);
        // Saying it again changes nothing; saying it without a token says that nothing was ended.
        assert_eq!(ask(&service, "DELETE", Some(&second), "").await.0, StatusCode::OK);
        assert_eq!(ask(&service, "DELETE", None, "").await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&service, "DELETE", Some("0123456789abcdefghijklmnop"), "").await.0, StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn a_store_that_is_down_is_no_login() {
    on_a_worker(async {
        let (service, kept, _wechat) = service().await;
        kept.1.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(log_in(&service, "good-a").await, (503, 50305));
        kept.1.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(log_in(&service, "good-a").await, (401, 40104), "WeChat has given its answer");
        assert_eq!(log_in(&service, "good-b").await, (200, 0));
    });
}

#[test]
fn a_user_can_be_who_they_are_in_all_applications() {
    on_a_worker(async {
        let (wechat, kept) = (Wechat::start(1000).await, Kept::default());
        let service = Service::new(wechat.settings(User::Unionid), kept.clone()).unwrap();
        assert_eq!(log_in(&service, "known-a").await, (200, 0));
        assert_eq!(kept.users(), ["u-a"]);
        assert_eq!(log_in(&service, "good-b").await, (500, 50003), "there is no unionid");
    });
}

#[test]
fn what_is_no_login_is_told_so() {
    on_a_worker(async {
        let (service, _kept, wechat) = service().await;
        for body in ["", "{}", "[]", r#"{"code":7}"#, r#"{"code":""}"#, r#"{"code":"a b"}"#, "code=good-a"] {
            let (status, answer) = ask(&service, "POST", None, body).await;
            assert_eq!((status.as_u16(), &answer["code"]), (400, &40005.into()), "{body}");
        }
        let large = format!(r#"{{"code":"good-a","more":"{}"}}"#, "x".repeat(LARGEST));
        assert_eq!(ask(&service, "POST", None, &large).await.0.as_u16(), 413);
        assert_eq!(ask(&service, "GET", None, "").await.0.as_u16(), 405);
        assert_eq!(wechat.asked.borrow().len(), 0);
    });
}

#[test]
fn nothing_that_is_shown_tells_a_secret() {
    on_a_worker(async {
        let (service, ..) = service().await;
        assert!(!format!("{service:?}").contains("s3cret"));
    });
}

#[test]
fn a_session_key_is_asked_about_with_its_signature() {
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let asked = spawn_local(async move {
            let mut lines = Vec::new();
            let (mut stream, _) = listener.accept().await.unwrap();
            for errcode in [0, 87009, 40001] {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                lines.push(String::from_utf8_lossy(&head[..length]).lines().next().unwrap().to_owned());
                let body = format!(r#"{{"errcode":{errcode},"errmsg":"…"}}"#);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            lines
        });
        let login = Login {
            appid: "wx1".into(),
            openid: "o-1".into(),
            unionid: None,
            session_key: "o0q0otL8aEzpcZL/FT9WsQ==".into(),
            created: 0,
            expires: 1,
            idle: 1,
        };
        fn sendable<T: Send>(future: T) -> T {
            future
        }
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(sendable(client.check_session_key("t0ken", &login)).await);
        }
        assert!(matches!(answers[..], [Ok(true), Ok(false), Err(SessionKeyError::Refused(40001))]), "{answers:?}");
        let lines = asked.await.unwrap();
        assert_eq!(
            lines[0],
            "GET /wxa/checksession?access_token=t0ken&openid=o-1&signature=46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128&sig_method=hmac_sha256 HTTP/1.1"
        );
    });
}
