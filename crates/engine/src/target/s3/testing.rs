//! A bucket on the strict server, for tests.

use std::time::Duration;

use keepwatch_s3_server::{KEY_ID, REGION, SECRET, Server};

use super::{Credentials, Patience, S3Access, S3Place, S3Source, S3Target};

/// How a server is reached.
pub(crate) fn access(server: &Server) -> S3Access {
    let credentials = Credentials::Keys { key_id: KEY_ID.to_owned(), secret: SECRET.into(), token: None };
    S3Access { region: REGION.to_owned(), endpoint: Some(server.endpoint()), credentials }
}

/// For tests of faults.
pub(crate) fn little_patience() -> Patience {
    Patience {
        connect: Duration::from_secs(1),
        reply: Duration::from_secs(1),
        work: Duration::from_secs(1),
        rate_min: 50_000_000,
        pause: Duration::from_millis(10),
        ..Patience::default()
    }
}

/// The bucket `bucket` of a server.
pub(crate) fn bucket(server: &Server, prefix: &str, patience: Patience) -> S3Target {
    let place = S3Place::parse(format!("bucket/{prefix}").as_bytes()).expect("a bucket and a prefix");
    let access = access(server);
    S3Target::patient(&place, &S3Source::new(move || Ok(access.clone())), patience)
}
