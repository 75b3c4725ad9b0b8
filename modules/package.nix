# The blixard binary with the files of agent/dist where systemd, polkit and NixOS look for them.
{
  lib,
  blixard,
  buildPackages,
  installShellFiles,
  rustPlatform,
  stdenv,
  testers,
}:
let
  manifest = lib.importTOML ../Cargo.toml;
  # protoc runs while building, so it is one of the building machine.
  protoc = buildPackages.callPackage ./protoc.nix { };
  # Tests that need nothing but a temporary directory; the others want sockets or a running systemd.
  tested = [
    "blixard-model"
    "blixard-core"
    "blixard-consensus"
    "blixard-store"
    "blixard-launcher"
  ];
in
rustPlatform.buildRustPackage {
  pname = "blixard";
  inherit (manifest.workspace.package) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../agent
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];
  env.PROTOC = "${protoc}/bin/protoc";

  cargoBuildFlags = [ "--package=blixard" ];
  cargoTestFlags = map (name: "--package=${name}") tested;

  postInstall = ''
    install -D -m 0644 -t "$out/lib/systemd/system" agent/dist/systemd/*.service
    install -D -m 0644 -t "$out/share/polkit-1/rules.d" agent/dist/polkit/*.rules
    install -D -m 0644 -t "$out/lib/sysusers.d" agent/dist/sysusers/*.conf
    install -D -m 0644 -t "$out/lib/tmpfiles.d" agent/dist/tmpfiles/*.conf
    substituteInPlace "$out"/lib/systemd/system/*.service --replace-fail /usr/bin/blixard "$out/bin/blixard"
  ''
  + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    for shell in bash fish zsh; do
      "$out/bin/blixard" completions "$shell" > "blixard.$shell"
    done
    installShellCompletion --cmd blixard --bash blixard.bash --fish blixard.fish --zsh blixard.zsh
  '';

  passthru = {
    inherit protoc;
    tests = import ../vm-tests { inherit blixard testers; };
  };

  meta = {
    description = "Makes a few NixOS machines one home for microVMs";
    license = [
      lib.licenses.asl20
      lib.licenses.mit
    ];
    mainProgram = "blixard";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
