//! A connection: made, sealed, asked, given up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{IndexError, Result};
use super::settings::{IndexSettings, Tls};

/// A dead peer is noticed after this time without an answer to what was sent, besides the statement's own limit.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// A connection that rests is probed after this time.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes of COPY that are handed to the connection at once.
const COPY_CHUNK_BYTES: usize = 256 * 1024;

/// Ends whatever waits for the server.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Stop(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Ends it now.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was told to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    async fn stopped(&self) {
        // The sender lives as long as this does.
        let _ = self.0.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// Whether a session may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
}

/// A connection, and the run-time that drives it: one thread, the caller's, while it waits.
pub(super) struct Session {
    runtime: Runtime,
    client: Client,
    statements: RefCell<HashMap<&'static str, Statement>>,
    timeout: Duration,
    stop: Stop,
}

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    /// Connects.
    pub(super) fn open(settings: &IndexSettings, access: Access, stop: Stop) -> Result<Session> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| IndexError::Unfit(format!("cannot start the network's run-time: {error}")))?;
        let mut config = settings.with_password()?;
        let limit = settings.timeout;
        config
            .application_name("keepwatch")
            .connect_timeout(CONNECT_MAX)
            .keepalives_idle(KEEPALIVE)
            .tcp_user_timeout(limit);
        let connect = async {
            match &settings.tls {
                Tls::Off => {
                    config.ssl_mode(SslMode::Disable);
                    let (client, connection) = config.connect(NoTls).await.map_err(IndexError::server("reach"))?;
                    drop(tokio::spawn(connection));
                    Ok(client)
                }
                tls => {
                    config.ssl_mode(SslMode::Require);
                    let tls = MakeRustlsConnect::new(client_tls(tls)?);
                    let (client, connection) = config.connect(tls).await.map_err(IndexError::server("reach"))?;
                    drop(tokio::spawn(connection));
                    Ok(client)
                }
            }
        };
        let client = limited(&runtime, CONNECT_MAX, &stop, connect)?;
        let session = Session { runtime, client, statements: RefCell::default(), timeout: limit, stop };
        session.settle(access)?;
        Ok(session)
    }

    /// A server that hangs, or a client that is gone, must not hold a transaction for ever.
    fn settle(&self, access: Access) -> Result<()> {
        let millis = self.timeout.as_millis();
        let read_only = if access == Access::Read { "on" } else { "off" };
        self.run(&format!(
            "SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}; \
             SET default_transaction_read_only = {read_only}; SET TimeZone = 'UTC'; SET bytea_output = 'hex'"
        ))?;
        if access == Access::Write {
            // What a follower asks is found by keys. A plan that was made while the tables were empty must not be kept, nor one
            // be made by what is not known of them yet. Only a matter of speed: an engine that lacks these does without.
            // A merge of what is asked with the table would read and sort all that the host has for each batch.
            for setting in [
                "plan_cache_mode = force_custom_plan",
                "enable_seqscan = off",
                "enable_hashjoin = off",
                "enable_mergejoin = off",
            ] {
                if let Err(error) = self.run(&format!("SET {setting}")) {
                    tracing::debug!(%error, setting, "the server does not know this setting");
                }
            }
        }
        Ok(())
    }

    /// Runs statements without parameters.
    pub(super) fn run(&self, sql: &str) -> Result<()> {
        self.wait("write", self.client.batch_execute(sql))
    }

    /// Runs a statement; how many rows it touched.
    pub(super) fn execute(&self, sql: &'static str, params: Params<'_>) -> Result<u64> {
        let statement = self.prepared(sql)?;
        self.wait("write", self.client.execute(&statement, params))
    }

    /// The rows of a query that gives few.
    pub(super) fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>> {
        let statement = self.prepared(sql)?;
        self.wait("read", self.client.query(&statement, params))
    }

    /// The same for a statement that was put together; it is not kept.
    pub(super) fn query_once(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.wait("read", self.client.query(sql, params))
    }

    /// Sends rows by COPY in the binary format, header and trailer included in `data`.
    pub(super) fn copy(&self, sql: &'static str, data: BytesMut) -> Result<u64> {
        let statement = self.prepared(sql)?;
        let mut data: Bytes = data.freeze();
        self.wait("write", async {
            let sink = self.client.copy_in::<_, Bytes>(&statement).await?;
            let mut sink = std::pin::pin!(sink);
            while !data.is_empty() {
                sink.feed(data.split_to(data.len().min(COPY_CHUNK_BYTES))).await?;
            }
            sink.as_mut().finish().await
        })
    }

    fn prepared(&self, sql: &'static str) -> Result<Statement> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wait("prepare", self.client.prepare(sql))?;
        self.statements.borrow_mut().insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) fn wait<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        // The server gives up first, so that what it says is heard.
        let limit = self.timeout + self.timeout / 4;
        limited(&self.runtime, limit, &self.stop, async { work.await.map_err(IndexError::server(doing)) })
    }

    /// The driver, for rows that come one by one.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

fn limited<T>(runtime: &Runtime, limit: Duration, stop: &Stop, work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = stop.stopped() => Err(IndexError::Stopped),
            done = tokio::time::timeout(limit, work) => {
                done.unwrap_or(Err(IndexError::Silent { seconds: limit.as_secs() }))
            }
        }
    })
}

fn client_tls(tls: &Tls) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match tls {
        Tls::Authority(path) => {
            let unusable = |why: String| IndexError::Tls(format!("{}: {why}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it holds no certificate".to_owned()));
            }
        }
        Tls::System | Tls::Off => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                return Err(IndexError::Tls(format!("the system has no authorities{why}; name a file by `ca_file`")));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| IndexError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
