#!/usr/bin/env bash
# package: rustup 1.29.0
#
# Expected: a rust-toolchain.toml with `channel = "1.95"` accepts the toolchain `stable` when that is Rust
# 1.95. Instead rustup looks for a toolchain of that name, and downloads it or, with RUSTUP_AUTO_INSTALL=0,
# refuses: a machine without a network that has the right compiler cannot build. So this repository has no
# such file; the oldest compiler that it builds with is `rust-version` in Cargo.toml.
set -eu

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"

version=$(rustc +stable --version | cut -d ' ' -f 2)
channel=${version%.*}
if rustup toolchain list | grep -q "^$channel-"; then
  echo "Rust $channel is installed under that name as well: this machine cannot show it" >&2
  exit 2
fi
printf '[toolchain]\nchannel = "%s"\n' "$channel" > rust-toolchain.toml
echo "stable is Rust $version; the toolchain file asks for $channel"
echo "expected: cargo runs"
if RUSTUP_AUTO_INSTALL=0 cargo --version > output 2>&1; then
  echo "seen: it runs"
  exit 1
fi
echo "seen: $(head -n 1 output)"
