# The protoc that protobuf-build carries, made to run where there is no /lib64.
#
# raft-proto generates its Rust code with protobuf-build, which takes a protoc of major version 3 and
# otherwise falls back to a dynamically linked binary inside its own crate. nixpkgs' protobuf counts 25, 30
# and on, and drops the old versions; the fallback has no loader in a Nix build. So this is that same binary,
# from the crate and with the checksum that Cargo.lock names, given nixpkgs' loader; its libraries are libc's
# own.
{
  lib,
  fetchurl,
  patchelf,
  runCommandCC,
  stdenv,
}:
let
  lock = lib.importTOML ../Cargo.lock;
  crate = lib.findFirst (
    package: package.name == "protobuf-build"
  ) (throw "Cargo.lock names no protobuf-build: modules/protoc.nix is not needed any more") lock.package;
  name = "${crate.name}-${crate.version}";
  source = fetchurl {
    name = "${name}.crate.tar.gz";
    url = "https://static.crates.io/crates/${crate.name}/${name}.crate";
    sha256 = crate.checksum;
  };
  arch = if stdenv.hostPlatform.isAarch64 then "aarch_64" else "x86_64";
in
runCommandCC "protoc-of-${name}" { nativeBuildInputs = [ patchelf ]; } ''
  tar -xzf ${source}
  install -D -m 0755 ${name}/bin/protoc-linux-${arch} "$out/bin/protoc"
  patchelf --set-interpreter "$(cat "$NIX_CC/nix-support/dynamic-linker")" "$out/bin/protoc"
  "$out/bin/protoc" --version
''
