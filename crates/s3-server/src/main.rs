//! The server as a process, for benchmarks: `keepwatch-s3-server [PORT] [BUCKET]…`. Prints its URL when it is ready.

use std::net::SocketAddr;

use keepwatch_s3_server::{Server, Settings};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server::with(&Settings { listen, workers: 2, ..Settings::default() })?;
    for bucket in arguments {
        server.store.make_bucket(&bucket);
    }
    println!("{}", server.endpoint());
    loop {
        std::thread::park();
    }
}
