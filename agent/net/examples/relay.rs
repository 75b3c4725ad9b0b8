//! A relay without TLS, for tests in network namespaces, until it is killed.
//!
//! `relay IP:PORT`. Prints one line, `ready: http://IP:PORT`, when it listens.

use std::error::Error;
use std::net::SocketAddr;

use iroh_relay::server::{RelayConfig, Server, ServerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bind: SocketAddr = std::env::args().nth(1).ok_or("IP:PORT is missing")?.parse()?;
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(bind));
    let mut server = Server::spawn(config).await?;
    println!("ready: http://{}", server.http_addr().ok_or("it does not listen")?);
    server.join().await??;
    Ok(())
}
