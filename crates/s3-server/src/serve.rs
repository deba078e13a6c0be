//! The socket, and the faults between it and the store.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::api::Api;
use crate::faults::{Fault, Faults};
use crate::store::Store;
use crate::{azure, google};

/// The one who may ask.
pub const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
/// The secret to it, that of the examples in S3's documentation.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// Where the server says it is.
pub const REGION: &str = "eu-north-1";

/// As what a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// S3.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As what it speaks.
    pub dialect: Dialect,
    /// Where it listens; port 0 is any.
    pub listen: SocketAddr,
    /// Whether it heeds `If-None-Match`.
    pub is_conditional: bool,
    /// How many threads it works with.
    pub workers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Settings { dialect: Dialect::S3, listen, is_conditional: true, workers: 1 }
    }
}

/// What was asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests by method.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of bodies that arrived.
    pub bytes: u64,
}

impl Seen {
    /// How many requests of a method there were.
    #[must_use]
    pub fn of(&self, method: &str) -> u64 {
        self.requests.get(method).copied().unwrap_or(0)
    }
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    /// What it holds.
    pub store: Store,
    /// What is to go wrong.
    pub faults: Faults,
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// Starts one on loopback, with a bucket. It is ready when this returns.
    ///
    /// # Errors
    /// The system's answer.
    pub fn start(bucket: &str) -> io::Result<Self> {
        Server::speaking(Dialect::S3, bucket)
    }

    /// The same, speaking so.
    ///
    /// # Errors
    /// The system's answer.
    pub fn speaking(dialect: Dialect, bucket: &str) -> io::Result<Self> {
        let server = Server::with(&Settings { dialect, ..Settings::default() })?;
        server.store.make_bucket(bucket);
        Ok(server)
    }

    /// Starts one that is as described.
    ///
    /// # Errors
    /// The system's answer.
    pub fn with(settings: &Settings) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(settings.workers).enable_all().build()?;
        let (store, faults, seen) = (Store::default(), Faults::default(), Arc::<Mutex<Seen>>::default());
        let api = Api { store: store.clone(), region: REGION.to_owned(), is_conditional: settings.is_conditional };
        let mut builder = S3ServiceBuilder::new(api);
        builder.set_auth(OneKey);
        let service = match settings.dialect {
            Dialect::S3 => Service::S3(builder.build()),
            Dialect::Google => Service::Google(store.clone()),
            Dialect::Azure => Service::Azure(store.clone()),
        };
        let door = Door { service, faults: faults.clone(), seen: Arc::clone(&seen) };
        let listener = runtime.block_on(tokio::net::TcpListener::bind(settings.listen))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let door = door.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| door.clone().answer(request));
                    let mut http = hyper::server::conn::http1::Builder::new();
                    // An error here is a connection that was cut, by the other side or on order.
                    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Server { store, faults, address, seen, _runtime: runtime })
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Knows one key.
struct OneKey;

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, id: &str) -> s3s::S3Result<SecretKey> {
        if id == KEY_ID { Ok(SecretKey::from(SECRET)) } else { Err(s3s::s3_error!(InvalidAccessKeyId)) }
    }
}

/// Who answers what passes the door.
#[derive(Clone)]
enum Service {
    S3(S3Service),
    Google(Store),
    Azure(Store),
}

#[derive(Clone)]
struct Door {
    service: Service,
    faults: Faults,
    seen: Arc<Mutex<Seen>>,
}

impl Door {
    async fn answer(self, request: Request<Incoming>) -> io::Result<Response<s3s::Body>> {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.requests.entry(method.clone()).or_default() += 1;
            seen.bytes += request.body().size_hint().exact().unwrap_or(0);
        }
        let fault = self.faults.strike(&method, &target);
        match fault {
            None => self.serve(request).await,
            Some(Fault::InternalError) => refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError").await,
            Some(Fault::SlowDown) => refuse(request, StatusCode::SERVICE_UNAVAILABLE, "SlowDown").await,
            Some(Fault::BlackHole) => {
                let _held = request;
                std::future::pending().await
            }
            Some(Fault::ReplyLost) => {
                let reply = self.serve(request).await?;
                let _ = reply.into_body().collect().await;
                Err(cut())
            }
            Some(Fault::Cut) if request.body().size_hint().lower() > 0 => {
                let _ = request.into_body().frame().await;
                Err(cut())
            }
            Some(Fault::Cut) => {
                let reply = self.serve(request).await?;
                let (parts, body) = reply.into_parts();
                let left = body.size_hint().lower() / 2;
                Ok(Response::from_parts(parts, s3s::Body::http_body_unsync(Torn { body, left })))
            }
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> io::Result<Response<s3s::Body>> {
        match &self.service {
            Service::Google(store) => Ok(google::answer(store, request).await),
            Service::Azure(store) => Ok(azure::answer(store, request).await),
            Service::S3(service) => {
                let (parts, body) = request.into_parts();
                let request = Request::from_parts(parts, s3s::Body::from(body));
                service.call(request).await.map_err(|error| io::Error::other(format!("{error:?}")))
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut on order")
}

async fn refuse(request: Request<Incoming>, status: StatusCode, code: &str) -> io::Result<Response<s3s::Body>> {
    let _ = request.into_body().collect().await;
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>on order</Message></Error>");
    let mut reply = Response::new(s3s::Body::from(text));
    *reply.status_mut() = status;
    Ok(reply)
}

/// A body that breaks off.
struct Torn {
    body: s3s::Body,
    left: u64,
}

impl hyper::body::Body for Torn {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(cut())));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(Some(Err(cut()))) };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(Some(Err(cut()))) };
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
