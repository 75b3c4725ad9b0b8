//! The questions to nix: functions in the Nix language, each applied to one attribute of the flake. This
//! module holds text only.
//!
//! `EXAMPLE`, `OTHERWISE` and `MACHINES` return what `checks` reads back; `REFUSED` and `FAILING` are
//! mistakes. The functions use nothing but `builtins` and the attribute itself, so that any nixpkgs can
//! answer them.

/// Returns what the configuration of a node renders, for `nixosConfigurations.example` as it is.
pub(super) const EXAMPLE: &str = r#"
example:
let
  inherit (example) config;
  inherit (config.services.blixard) package;
  has = builtins.elem package;
in
{
  agent = config.systemd.units."blixard.service".text;
  vm = config.systemd.units."blixard-vm@.service".text;
  strategies = map (name: config.systemd.units.${name}.overrideStrategy) [
    "blixard.service"
    "blixard-vm@.service"
  ];
  config = config.environment.etc."blixard/config.toml".source.values;
  udp = config.networking.firewall.allowedUDPPorts;
  tcp = config.networking.firewall.allowedTCPPorts;
  polkit = config.security.polkit.enable;
  linked = config.environment.pathsToLink;
  carried = {
    units = has config.systemd.packages;
    system = has config.environment.systemPackages;
    tmpfiles = has config.systemd.tmpfiles.packages;
  };
  user = { inherit (config.users.users.blixard) isSystemUser group extraGroups home; };
  groups = builtins.attrNames config.users.groups;
  installs = package.postInstall;
}
"#;

/// Returns what the configuration renders for a node whose settings are as far from the defaults as possible.
pub(super) const OTHERWISE: &str = r#"
example:
let
  changes = { lib, ... }: {
    networking.hostName = lib.mkForce "lonely";
    services.blixard = {
      keyFile = lib.mkForce null;
      openFirewall = lib.mkForce false;
      cluster.members = lib.mkForce { };
      cluster.joinTicketFile = "/run/secrets/50%.ticket";
      settings.role = "witness";
      settings.voter_lost_after_s = 30;
      settings.hold_s = 30;
      settings.last_resort = "reboot";
      settings.port = 7531;
      settings.advertise_addresses = [ "203.0.113.7:7531" "[2001:db8::7]:7531" ];
      settings.data_dir = "/srv/blixard";
      settings.vms.accel = "tcg";
      settings.vms.qemu = "/opt/qemu";
      settings.vms.disk_dirs = [
        "/var/lib/blixard-disks"
        { path = "/mnt/vms/disks"; shared = true; }
      ];
    };
    # Mounted late, and in two ways to declare a mount.
    fileSystems."/srv" = { device = "/dev/mapper/srv"; fsType = "ext4"; options = [ "nofail" ]; };
    systemd.mounts = [ { what = "10.77.0.9:/vms"; where = "/mnt/vms"; } ];
  };
  inherit (example.extendModules { modules = [ changes ]; }) config;
  directory = name: config.systemd.units."blixard-directory-${name}.service".text;
in
{
  agent = config.systemd.units."blixard.service".text;
  vm = config.systemd.units."blixard-vm@.service".text;
  last_resort = config.systemd.units."blixard-last-resort.service".text;
  config = config.environment.etc."blixard/config.toml".source.values;
  udp = config.networking.firewall.allowedUDPPorts;
  tmpfiles = builtins.attrNames config.systemd.tmpfiles.settings;
  directories = {
    data = directory "srv-blixard";
    disks = directory "mnt-vms-disks";
    own = directory "var-lib-blixard\\x2ddisks";
  };
  complaints = map (it: it.message) (builtins.filter (it: !it.assertion) config.assertions);
}
"#;

/// Returns one fact each about nodes that differ from the example in one thing.
pub(super) const VARIANTS: &str = r#"
example:
let
  of = module: (example.extendModules { modules = [ module ]; }).config;
  valuesOf = config: config.environment.etc."blixard/config.toml".source.values;
  complaintsOf = config: map (it: it.message) (builtins.filter (it: !it.assertion) config.assertions);
  witness = of { services.blixard.settings.role = "witness"; };
  arm = of ({ lib, ... }: { nixpkgs.hostPlatform = lib.mkForce "aarch64-linux"; });
  overlaid = of {
    nixpkgs.overlays = [ (final: prev: { blixard = prev.hello // { isOverlaid = true; }; }) ];
  };
  off = of ({ lib, ... }: { services.blixard.enable = lib.mkForce false; });
  warningsOf = settings: (of { services.blixard.settings = settings; }).warnings;
  inherit (example.config.services.blixard) package;
  has = builtins.elem package;
in
{
  witness = valuesOf witness;
  arm = { config = valuesOf arm; complaints = complaintsOf arm; };
  overlaid = overlaid.services.blixard.package.isOverlaid or false;
  off = {
    carried = {
      units = has off.systemd.packages;
      system = has off.environment.systemPackages;
      tmpfiles = has off.systemd.tmpfiles.packages;
    };
    units = builtins.filter (name: builtins.match "blixard.*" name != null) (
      builtins.attrNames off.systemd.units
    );
    user = off.users.users ? blixard;
  };
  warnings = {
    none = warningsOf { };
    port = warningsOf { port = 7500; };
    listen_address = warningsOf { listen_address = "10.77.0.9"; };
    advertised = warningsOf { port = 7500; advertise_addresses = [ "203.0.113.7:7431" ]; };
    shared = warningsOf { vms.disk_dirs = [ { path = "/mnt/vms"; shared = true; } ]; };
    numbered = (of {
      services.blixard.settings.vms.disk_dirs = [ { path = "/mnt/vms"; shared = true; } ];
      users.groups.blixard-disk.gid = 7431;
    }).warnings;
  };
}
"#;

/// The machines of a VM test.
pub(super) const MACHINES: &str = r#"
test: builtins.mapAttrs (name: machine: {
  config = machine.environment.etc."blixard/config.toml".source.values;
  agent = machine.systemd.units."blixard.service".text;
  etc = builtins.attrNames machine.environment.etc;
  key = builtins.readFile machine.environment.etc."blixard-test/node.key".source;
  complaints = map (it: it.message) (builtins.filter (it: !it.assertion) machine.assertions);
}) test.nodes
"#;

/// Makes every mistake that an assertion has to find, on one node, and returns the messages. `REFUSALS` lists
/// what they have to be.
pub(super) const REFUSED: &str = r#"
example:
let
  mistakes = { lib, ... }: {
    services.blixard = {
      keyFile = lib.mkForce "/nix/store/00000000000000000000000000000000-node.key";
      cluster.joinTicketFile = "/nix/store/00000000000000000000000000000000-join.ticket";
      cluster.members = {
        n2.endpointId = lib.mkForce example.config.services.blixard.cluster.members.n1.endpointId;
        n2.addresses = lib.mkForce [ "10.77.0.2" ];
        n3.addresses = lib.mkForce [ "10.77.0.3:70000" "0.0.0.0:7431" ];
        N4 = {
          endpointId = "0000000000000000000000000000000000000000000000000000000000000004";
          addresses = [ "[fd00::4]:7431" "10.77.0.1:7431" "127.0.0.4:7431" ];
        };
      };
      settings = {
        node_name = "n_1";
        port = 0;
        socket = "/tmp/blixard.sock";
        data_dir = "blixard";
        key_file = "/etc/node.key";
        join = true;
        advertise_addresses = [ "n1:7431" ];
        members.n1.addresses = [ "10.77.0.11:7431" ];
        net.relay_ca_file = "/home/relay-ca.pem";
        vms.disk_dirs = [
          "disks"
          "/"
          "/srv"
          "/etc/disks"
          "/home/vms"
          "/tmp/disks"
          "/nix/store/disks"
          "/srv/two words"
          "/srv/disks/"
          "/var/lib/blixard/disks"
          "/srv/vms"
          "/srv/vms/fast"
        ];
      };
    };
  };
  inherit (example.extendModules { modules = [ mistakes ]; }) config;
in
map (it: it.message) (builtins.filter (it: !it.assertion) config.assertions)
"#;

/// What the messages of `REFUSED` have to begin with, and a part of the text that says what is wrong.
pub(super) const REFUSALS: [(&str, &str); 31] = [
    ("services.blixard.settings.node_name:", "\"n_1\""),
    ("services.blixard.cluster.members:", "\"n_1\", is not among N4, n1, n2, n3"),
    ("services.blixard.cluster.members:", "\"N4\" is not a node name"),
    ("services.blixard.cluster.members:", "n1 and n2 have the same endpointId"),
    ("services.blixard.cluster.members:", "10.77.0.1:7431 is listed more than once (N4, n1)"),
    ("services.blixard.cluster.members.N4.addresses:", "\"127.0.0.4:7431\" is a loopback address"),
    ("services.blixard.cluster.members.n2.addresses:", "\"10.77.0.2\""),
    ("services.blixard.cluster.members.n3.addresses:", "\"0.0.0.0:7431\" is the unspecified address"),
    ("services.blixard.cluster.members.n3.addresses:", "\"10.77.0.3:70000\""),
    ("services.blixard.keyFile:", "lies in the Nix store"),
    ("services.blixard.cluster.joinTicketFile:", "lies in the Nix store"),
    ("services.blixard.cluster.joinTicketFile:", "leave one of the two out"),
    ("services.blixard.settings.join:", "leave one of the two out"),
    ("services.blixard.settings.port:", "0 is no port"),
    ("services.blixard.settings.socket:", "\"/tmp/blixard.sock\""),
    ("services.blixard.settings.data_dir:", "\"blixard\""),
    ("services.blixard.settings.key_file:", "use services.blixard.keyFile"),
    ("services.blixard.settings.advertise_addresses:", "\"n1:7431\""),
    ("services.blixard.settings.members:", "declare members in services.blixard.cluster.members, and there"),
    ("services.blixard.settings.net.relay_ca_file:", "\"/home/relay-ca.pem\" lies in a home directory"),
    (DISK_DIRS, "\"disks\" is not an absolute path"),
    (DISK_DIRS, "\"/\" is not blixard's alone; name a directory in it, as in /srv/blixard"),
    (DISK_DIRS, "\"/srv\" is not blixard's alone; name a directory in it, as in /srv/blixard"),
    (DISK_DIRS, "\"/etc/disks\" belongs to the system"),
    (DISK_DIRS, "\"/home/vms\" lies in a home directory"),
    (DISK_DIRS, "\"/tmp/disks\" does not last"),
    (DISK_DIRS, "\"/nix/store/disks\" lies in the Nix store"),
    (DISK_DIRS, "\"/srv/two words\" has a character"),
    (DISK_DIRS, "\"/srv/disks/\" is not the shortest way"),
    (DISK_DIRS, "\"/var/lib/blixard/disks\" lies in the agent's own directory"),
    (DISK_DIRS, "\"/srv/vms\" and \"/srv/vms/fast\" are one directory"),
];

const DISK_DIRS: &str = "services.blixard.settings.vms.disk_dirs:";

/// Mistakes that have to fail the evaluation of a whole system, and what the error has to name.
pub(super) const FAILING: [(&str, &str); 10] = [
    (
        r#"settings.node_name = "n9";"#,
        "services.blixard.cluster.members: this node, \"n9\", is not among n1, n2, n3",
    ),
    (
        r#"settings.data_dir = "/home/x";"#,
        "services.blixard.settings.data_dir: \"/home/x\" lies in a home directory",
    ),
    (
        r#"settings.data_dir = "/srv/vms/n1"; settings.vms.disk_dirs = [ "/srv/vms" ];"#,
        "services.blixard.settings.vms.disk_dirs: \"/srv/vms\" and services.blixard.settings.data_dir",
    ),
    (
        r#"settings.members.n1.addresses = [ "10.77.0.11:7431" ];"#,
        "services.blixard.settings.members: declare members in services.blixard.cluster.members",
    ),
    ("settings.port = 70000;", "services.blixard.settings.port"),
    (
        r#"settings.join_ticket_file = "/etc/join.ticket";"#,
        "services.blixard.settings.join_ticket_file: use services.blixard.cluster.joinTicketFile",
    ),
    ("settings.voter_lost_after_s = 4;", "services.blixard.settings.voter_lost_after_s"),
    ("settings.hold_s = 3601;", "services.blixard.settings.hold_s"),
    (
        r#"cluster.members.n4 = { endpointId = "n4"; addresses = [ "10.77.0.4:7431" ]; };"#,
        "members.n4.endpointId",
    ),
    ("openFirewal = true;", "services.blixard.openFirewal"),
];

/// An expression for the system of the example with these additional settings of `services.blixard`.
pub(super) fn toplevel_with(settings: &str) -> String {
    format!(
        "example: (example.extendModules {{ modules = [ {{ services.blixard = {{ {settings} }}; }} ]; }})\
         .config.system.build.toplevel.drvPath"
    )
}
