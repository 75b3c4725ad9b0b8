# services.blixard: what can be set. Nothing here has an effect; the other files of this directory read it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;

  toml = pkgs.formats.toml { };

  member = types.submodule {
    options = {
      endpointId = mkOption {
        type = types.strMatching "[0-9a-f]{64}";
        example = "63e5e8de8d5d99c3a0a2a3a7ea67a2b8a6b8ad13f5d9a9b2a3ffb3bb98eab3de";
        description = ''
          The node's endpoint id: the public half of its key, 64 hex digits.
          {command}`blixard keygen` writes a key and prints its endpoint id.
        '';
      };
      addresses = mkOption {
        type = types.nonEmptyListOf types.str;
        example = [ "10.77.0.1:7431" ];
        description = ''
          Where the other members reach this node, each as `IP:PORT` (`[IP]:PORT` for IPv6), UDP.
        '';
      };
    };
  };

  netSettings = types.submodule {
    freeformType = toml.type;
    options = {
      relay_urls = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "https://relay.example.org" ];
        description = ''
          The relays this node uses to reach nodes that it has no direct way to, at most 4, and the only ones
          it ever contacts. They are the operator's own ({command}`iroh-relay`); nodes that are to reach each
          other through a relay all name it. `http://` is taken only with a loopback or private IP address.
        '';
      };
      relay_ca_file = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/etc/ssl/relay-ca.pem";
        description = ''
          A file with the certificates of the authorities that vouch for the relays, in PEM, readable by the
          user `blixard`. When null, those that Mozilla trusts do.
        '';
      };
    };
  };

  diskDir = types.submodule {
    freeformType = toml.type;
    options = {
      path = mkOption {
        type = types.str;
        example = "/mnt/vms";
        description = "The directory.";
      };
      shared = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether its files are the same ones on every node that says so, by the same path. A disk there that
          is written belongs to one VM in the whole cluster.
        '';
      };
    };
  };

  vmSettings = types.submodule {
    freeformType = toml.type;
    options = {
      accel = mkOption {
        type = types.enum [
          "kvm"
          "tcg"
        ];
        default = if pkgs.stdenv.hostPlatform.isx86_64 then "kvm" else "tcg";
        defaultText = lib.literalMD "`kvm` on x86_64, the guests' own architecture; else `tcg`";
        description = "What runs guest code: virtualization (`kvm`) or emulation (`tcg`, slow).";
      };
      qemu = mkOption {
        type = types.nullOr types.str;
        defaultText = lib.literalMD ''
          `qemu-system-x86_64` of `pkgs.qemu_kvm`, or of `pkgs.qemu` on processors other than x86_64; null on
          a witness
        '';
        description = "The QEMU to run: an absolute path, or a name searched in PATH.";
      };
      disk_dirs = mkOption {
        type = types.listOf (types.either types.str diskDir);
        default = [ "/var/lib/blixard-disks" ];
        example = [
          "/var/lib/blixard-disks"
          {
            path = "/mnt/vms";
            shared = true;
          }
        ];
        description = ''
          The directories VM disks may lie in; the agent refuses every other path. No VM starts before the
          file systems that they lie on are mounted.

          Each is a path, or a path with `shared = true` where its files are the same ones on every node that
          says so, as on NFS or Ceph. VMs whose disks lie there can be started on another node.

          One that does not exist is made with mode 3770, owner `root` and group `blixard-disk`. One that is
          there keeps its owner and mode, and group `blixard-disk` has to be able to write to it.
        '';
      };
    };
  };

  resourceSettings = types.submodule {
    freeformType = toml.type;
    options = {
      cpus = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        description = "Processors offered to VMs; null offers what the machine has.";
      };
      memory_mib = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        description = "Memory offered to VMs, in MiB; null offers what the machine has, less the reserve.";
      };
      reserve_memory_mib = mkOption {
        type = types.ints.unsigned;
        default = 512;
        description = "Memory kept for the machine itself, in MiB. Used when `memory_mib` is null.";
      };
    };
  };

  settings = types.submodule {
    freeformType = toml.type;
    options = {
      node_name = mkOption {
        type = types.str;
        default = config.networking.hostName;
        defaultText = lib.literalExpression "config.networking.hostName";
        description = "This node's name: 1 to 48 of `a-z`, `0-9` and `-`, first a letter, last not `-`.";
      };
      cluster_name = mkOption {
        type = types.str;
        default = "blixard";
        description = "The cluster's name, the same on every node. Nodes of another cluster are refused.";
      };
      data_dir = mkOption {
        type = types.str;
        default = "/var/lib/blixard";
        description = ''
          Where the node keeps its store, and its key unless {option}`services.blixard.keyFile` is set. The
          agent starts when the file system that it lies on is mounted, however late that is.

          One that does not exist is made with mode 0700 and owner `blixard`. One that is there keeps its
          owner and mode, and has to be the user `blixard`'s.
        '';
      };
      listen_address = mkOption {
        type = types.str;
        default = "0.0.0.0";
        description = ''
          The IP address the agent binds. `0.0.0.0` and `::` both stand for all addresses of IPv4 and IPv6.
        '';
      };
      port = mkOption {
        type = types.port;
        default = 7431;
        description = "The UDP port the agent binds.";
      };
      advertise_addresses = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "203.0.113.7:7431" ];
        description = ''
          Where others reach this node, each as `IP:PORT`, when that is not what
          {option}`services.blixard.cluster.members` says of it.
        '';
      };
      join = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether this node, which has no list of members, waits for a ticket and forms no cluster of its own;
          {command}`blixard cluster join` takes the ticket. Implied by
          {option}`services.blixard.cluster.joinTicketFile`.
        '';
      };
      role = mkOption {
        type = types.enum [
          "node"
          "witness"
        ];
        default = "node";
        description = ''
          What the node is for. A `witness` votes and keeps the log, and is never given a VM: with it, two
          machines that run VMs are a cluster that goes on when one of them is down.
        '';
      };
      last_resort = mkOption {
        type = types.enum [
          "none"
          "reboot"
        ];
        default = "none";
        description = ''
          What is done where SIGKILL does not end a VM whose lease is over, as on storage that hangs. `reboot`
          restarts the machine at once and without a shutdown, before another node starts the VM;
          {file}`blixard-last-resort.service` does it.
        '';
      };
      voter_lost_after_s = mkOption {
        type = types.ints.between 5 4294967295;
        default = 180;
        description = ''
          A voter that was not heard of for so many seconds is replaced by another member, if there is one.
          Longer than a machine takes to boot again.
        '';
      };
      hold_s = mkOption {
        type = types.ints.between 0 3600;
        default = 120;
        description = ''
          VMs of this node that may be failed over run on for so many seconds when the agent is stopped or
          replaced, and are failed over that much later if the machine is lost meanwhile. With 0 they run no
          longer than their lease.
        '';
      };
      socket = mkOption {
        type = types.str;
        default = "/run/blixard/blixard.sock";
        description = "The Unix socket of the local API; it has to lie in {file}`/run/blixard`.";
      };
      net = mkOption {
        type = netSettings;
        default = { };
        description = "How this node reaches others that it has no direct way to.";
      };
      vms = mkOption {
        type = vmSettings;
        default = { };
        description = "How this node runs VMs.";
      };
      resources = mkOption {
        type = resourceSettings;
        default = { };
        description = "What this node offers to VMs.";
      };
    };
  };
in
{
  options.services.blixard = {
    enable = lib.mkEnableOption "blixard, which makes a few machines one home for microVMs";

    package = lib.mkPackageOption pkgs "blixard" { };

    settings = mkOption {
      type = settings;
      default = { };
      example = {
        cluster_name = "lab";
        resources.memory_mib = 8192;
      };
      description = ''
        The agent's configuration, {file}`/etc/blixard/config.toml`. Every key of the agent can be set here;
        a key it does not know fails the build of the system. Members are declared in
        {option}`services.blixard.cluster.members` and the key in {option}`services.blixard.keyFile`.
      '';
    };

    cluster.members = mkOption {
      type = types.attrsOf member;
      default = { };
      example = lib.literalExpression ''
        {
          n1 = { endpointId = "63e5..."; addresses = [ "10.77.0.1:7431" ]; };
          n2 = { endpointId = "a10c..."; addresses = [ "10.77.0.2:7431" ]; };
          n3 = { endpointId = "0f4d..."; addresses = [ "10.77.0.3:7431" ]; };
        }
      '';
      description = ''
        The nodes of the cluster by name, the same on every node, this one included. They form the cluster by
        themselves, started in any order. Without members the node is an explicit cluster of one, unless
        {option}`services.blixard.settings.join` or {option}`services.blixard.cluster.joinTicketFile` lets it
        join another.
      '';
    };

    cluster.joinTicketFile = mkOption {
      type = types.nullOr types.path;
      # As for the key: a path literal must stay text.
      apply = path: if path == null then null else toString path;
      default = null;
      example = "/run/keys/blixard-join.ticket";
      description = ''
        A file on the machine with a ticket of {command}`blixard cluster ticket create`, readable by root
        alone and outside the Nix store: with it this node, which has no list of members, joins the cluster
        that made the ticket. The agent gets it through systemd's LoadCredential. It is used once; the file
        may be removed when the node is a member.
      '';
    };

    keyFile = mkOption {
      type = types.nullOr types.path;
      # A path literal must stay text: turned into a string the usual way it would be copied into the store.
      apply = path: if path == null then null else toString path;
      default = null;
      example = "/run/keys/blixard-node.key";
      description = ''
        A file on the machine with this node's secret key, readable by root alone and outside the Nix store;
        the agent gets it through systemd's LoadCredential. While it is missing the agent says so and is
        started again every second. When null, the key is {file}`node.key` in the data directory, and the
        agent makes one at its first start.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the agent's UDP port, {option}`services.blixard.settings.port`.";
    };
  };
}
