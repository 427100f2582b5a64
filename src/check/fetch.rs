//! Asking another service: one GET over HTTP or HTTPS, its answer whole and of bounded size.
//!
//! For what a check has to ask of somebody far away, rarely: keys of an authority, WeChat's login.
//! Connections are kept for each worker, since a connection lives on the worker that opened it.
//! Redirects are not followed, nothing is tried again once a byte of it was sent, and neither the
//! address nor what came back is ever in an error: either may hold a secret.

use std::time::Duration;

use ::http::{Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;
use tokio::time::timeout;

use crate::http::BoxError;

type Connections = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Most bytes of an answer.
const LARGEST: usize = 64 << 10;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Connections kept by each worker for each service.
const KEPT: usize = 2;

/// Asks services, and keeps its connections to them.
pub(crate) struct Fetcher {
    connect: Duration,
    whole: Duration,
    tls: rustls::ClientConfig,
    connections: ThreadLocal<Connections>,
}

/// What a service answered.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Nothing of the request was sent.
    #[error("cannot connect")]
    Unreachable(#[source] BoxError),
    /// It may have been heard.
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] BoxError),
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
    #[error("the answer has more than {LARGEST} bytes")]
    TooLarge,
}

impl Fetcher {
    /// One that gives up a connection attempt after `connect`, and a request with all that belongs to it after `whole`.
    ///
    /// Reads the certificates that this system trusts (or `SSL_CERT_FILE`) from the disk.
    ///
    /// # Errors
    /// This system has no trusted certificates.
    pub(crate) fn new(connect: Duration, whole: Duration) -> std::io::Result<Self> {
        // The provider is named: two of them among the dependencies would leave rustls to guess.
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_native_roots()?
            .with_no_client_auth();
        Ok(Self { connect, whole, tls, connections: ThreadLocal::new() })
    }

    /// Asks for `uri`, an absolute `http://` or `https://` one, and waits for the whole answer, whatever its status.
    pub(crate) async fn get(&self, uri: Uri) -> Result<Fetched, FetchError> {
        timeout(self.whole, self.ask(uri)).await.unwrap_or(Err(FetchError::TooSlow(self.whole)))
    }

    async fn ask(&self, uri: Uri) -> Result<Fetched, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let connections = self.connections.get_or(|| self.open());
        let response = connections.request(request).await.map_err(|error| match error.is_connect() {
            true => FetchError::Unreachable(error.into()),
            false => FetchError::Broken(error.into()),
        })?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, LARGEST).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
                true => FetchError::TooLarge,
                false => FetchError::Broken(error),
            })?;
        Ok(Fetched { status: head.status, body: body.to_bytes() })
    }

    /// Room for the connections of one worker; nothing is connected to yet.
    fn open(&self) -> Connections {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(self.connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(KEPT)
            .build(connector)
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("connect", &self.connect).field("whole", &self.whole).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::{JoinHandle, spawn_local};

    use super::*;

    /// Runs as a worker does.
    fn on_a_worker(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap().block_on(test);
    }

    /// A service that answers every request with these bytes; counts its connections.
    async fn service(answer: &'static [u8]) -> (Uri, Rc<Cell<u32>>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys?secret=s3cret", listener.local_addr().unwrap()).parse().unwrap();
        let count = Rc::new(Cell::new(0));
        let counter = Rc::clone(&count);
        let serving = spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.set(counter.get() + 1);
                spawn_local(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        (uri, count, serving)
    }

    fn fetcher() -> Fetcher {
        Fetcher::new(Duration::from_secs(5), Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn one_connection_carries_request_after_request() {
        on_a_worker(async {
            let (uri, connections, _serving) = service(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
            let fetcher = fetcher();
            for _ in 0..3 {
                let answer = fetcher.get(uri.clone()).await.unwrap();
                assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"{}"[..]));
            }
            assert_eq!(connections.get(), 1);
        });
    }

    #[test]
    fn a_redirect_is_an_answer_like_any_other() {
        on_a_worker(async {
            let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            let (uri, _, _serving) = service(moved).await;
            let answer = fetcher().get(uri).await.unwrap();
            assert_eq!(answer.status, StatusCode::FOUND);
        });
    }

    #[test]
    fn an_endless_answer_is_given_up() {
        on_a_worker(async {
            let endless = concat!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", "................");
            let (uri, _, _serving) = service(endless.as_bytes()).await;
            let hasty = Fetcher::new(Duration::from_secs(5), Duration::from_millis(50)).unwrap();
            assert!(matches!(hasty.get(uri).await, Err(FetchError::TooSlow(_))));

            let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}", ".".repeat(70_000));
            let (uri, _, _serving) = service(large.leak().as_bytes()).await;
            assert!(matches!(fetcher().get(uri).await, Err(FetchError::TooLarge)));
        });
    }

    #[test]
    fn an_error_never_tells_the_address() {
        on_a_worker(async {
            let (uri, _, serving) = service(b"nonsense").await;
            let broken = fetcher().get(uri.clone()).await.unwrap_err();
            assert!(matches!(broken, FetchError::Broken(_)), "{broken:?}");
            serving.abort();
            let _ = serving.await;
            let refused = fetcher().get(uri).await.unwrap_err();
            assert!(matches!(refused, FetchError::Unreachable(_)), "{refused:?}");
            assert!(!format!("{broken:?}{refused:?}").contains("s3cret"));
        });
    }

    /// A service on TLS with a certificate for `localhost`, and the authority that has signed it.
    async fn tls_service() -> (Uri, rustls::RootCertStore, JoinHandle<()>) {
        const SCRIPT: &str = "set -e\n\
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca\n\
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out req.pem -subj /CN=localhost\n\
            printf 'subjectAltName=DNS:localhost' > ext\n\
            openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem\n";
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("sh").arg("-c").arg(SCRIPT).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let certificate = |name: &str| CertificateDer::from_pem_file(dir.path().join(name)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.path().join("key.pem")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate("cert.pem")], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                spawn_local(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                    }
                });
            }
        });
        (format!("https://localhost:{port}/keys").parse().unwrap(), roots, serving)
    }

    #[test]
    fn only_a_service_whose_certificate_is_believed_hears_what_is_asked() {
        on_a_worker(async {
            let (uri, roots, _serving) = tls_service().await;
            let mut believing = fetcher();
            believing.tls =
                rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            let answer = believing.get(uri.clone()).await.unwrap();
            assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"{}"[..]));

            let stranger = fetcher().get(uri.clone()).await;
            assert!(matches!(stranger, Err(FetchError::Unreachable(_))), "{stranger:?}");
            let another_name = uri.to_string().replace("localhost", "127.0.0.1").parse().unwrap();
            let refused = believing.get(another_name).await;
            assert!(matches!(refused, Err(FetchError::Unreachable(_))), "{refused:?}");
            let in_the_clear = uri.to_string().replace("https", "http").parse().unwrap();
            let broken = believing.get(in_the_clear).await;
            assert!(matches!(broken, Err(FetchError::Broken(_))), "{broken:?}");
        });
    }
}
