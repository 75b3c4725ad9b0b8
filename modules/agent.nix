# blixard.service: the package's unit with what this machine's configuration adds to it, as a drop-in.
{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.services.blixard;
  inherit (cfg) keyFile;
  inherit (cfg.cluster) joinTicketFile;
  inherit (cfg.settings) data_dir port;

  credentials = import ./credentials.nix { inherit lib; };
  places = import ./places.nix { inherit config lib utils; };
  ownDataDir = data_dir != "/var/lib/blixard";
  made = lib.optional ownDataDir (places.unitOf data_dir);
in
{
  config = lib.mkIf cfg.enable {
    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];
    environment.systemPackages = [ cfg.package ];

    # The agent is not root: the package's rule lets its user manage blixard-vm@*.service and nothing else.
    # polkit reads share/polkit-1 of the system's packages.
    security.polkit.enable = true;

    systemd.services.blixard = {
      overrideStrategy = "asDropin";
      # An agent that finds its data directory empty would begin anew there. So it waits for the file system,
      # and where that comes after the boot (a passphrase, a disk of the network) it starts with it.
      wantedBy = [ "multi-user.target" ] ++ places.mountsOf data_dir;
      unitConfig.RequiresMountsFor = [ data_dir ];
      requires = made;
      after = made;
      # One restart instead of stop and start around the switch: the node is away for less time.
      stopIfChanged = false;
      serviceConfig = {
        LoadCredential =
          lib.optional (keyFile != null) (credentials.load "node.key" keyFile)
          ++ lib.optional (joinTicketFile != null) (credentials.load "join.ticket" joinTicketFile);
        # For the key, the agent's word for "there is none", with the file that was to have it. A ticket's
        # file may be removed once it was used. systemd takes an empty text for no credential.
        SetCredential =
          lib.optional (keyFile != null) (credentials.instead "node.key" "missing:${keyFile}")
          ++ lib.optional (joinTicketFile != null) (credentials.instead "join.ticket" "removed");
        ReadWritePaths = lib.mkIf ownDataDir [ data_dir ];
      };
    };

    networking.firewall.allowedUDPPorts = lib.mkIf cfg.openFirewall [ port ];
  };
}
