#!/usr/bin/env bash
# package: zbus 6.2.1
#
# Expected: an error that has a source leaves it out of its own text, as the guidelines of Rust's libraries
# ask for, because whoever prints an error prints the whole chain. Instead `zbus::Error` has the source in its
# text and returns it as well, so that a printed chain has the cause twice. So `with_causes` in
# agent/model/src/words.rs, which prints every error here, leaves a cause out that the text ends with.
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
zbus = { version = "=6.2.1", default-features = false, features = ["tokio"] }
TOML
mkdir src
cat > src/main.rs << 'RUST'
use std::error::Error;

fn main() {
    let error = zbus::Error::from(std::io::Error::other("the pipe is broken"));
    let source = error.source().expect("it has a source");
    println!("{error}: {source}");
}
RUST

cargo build --quiet
chain=$(target/debug/finding)
times=$(grep -o 'the pipe is broken' <<< "$chain" | wc -l)
echo "expected: the cause stands once in the printed chain"
echo "seen: $times times: $chain"
test "$times" -eq 2
