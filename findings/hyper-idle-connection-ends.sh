#!/usr/bin/env bash
# package: hyper 1.12.0
#
# Expected: `header_read_timeout`, "Set a timeout for reading client request headers", begins with the first
# byte of a request, so that a connection which is kept alive and silent stays. Instead it begins with the end
# of the request before: a client that says nothing for that long finds its connection closed.
# agent/daemon/src/api/server.rs counts on that: nothing else there ends silent connections, and they must not
# take the places of others for ever.
set -eu

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"

cat > Cargo.toml << 'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
http-body-util = "0.1"
hyper = { version = "=1.12.0", features = ["http1", "server"] }
hyper-util = { version = "0.1", features = ["tokio"] }
tokio = { version = "1", features = ["io-util", "macros", "rt", "test-util", "time"] }
TOML
mkdir src
cat > src/main.rs << 'RUST'
use std::convert::Infallible;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

// The clock stands still, and jumps to the next timer when everybody waits.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let (mut client, server) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
        let empty = || Response::new(http_body_util::Empty::<Bytes>::new());
        let answer = |_: Request<_>| async move { Ok::<_, Infallible>(empty()) };
        let _ = builder.serve_connection(TokioIo::new(server), service_fn(answer)).await;
    });
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.expect("an answer"));
    }
    let begun = Instant::now();
    match timeout(Duration::from_secs(3600), client.read_u8()).await {
        Ok(ended) => {
            let end = ended.expect_err("not a word");
            println!("ended after {} s: {end}", begun.elapsed().as_secs());
        }
        Err(_) => println!("open after an hour"),
    }
}
RUST

cargo build --quiet
seen=$(target/debug/finding)
echo "expected: a connection that is silent after its answer is open after an hour"
echo "seen: $seen"
case $seen in
  "ended after 10 s"*) ;;
  *) exit 1 ;;
esac
