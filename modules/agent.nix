# blixard.service: the package's unit with what this machine's configuration adds to it, as a drop-in.
{ config, lib, ... }:
let
  cfg = config.services.blixard;
  inherit (cfg.cluster) joinTicketFile;
  inherit (cfg.settings) data_dir port;
  ownDataDir = data_dir != "/var/lib/blixard";
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
      wantedBy = [ "multi-user.target" ];
      # One restart instead of stop and start around the switch: the node is away for less time.
      stopIfChanged = false;
      serviceConfig = {
        LoadCredential =
          lib.optional (cfg.keyFile != null) "node.key:${cfg.keyFile}"
          ++ lib.optional (joinTicketFile != null) "join.ticket:${joinTicketFile}";
        # What there is instead once the file is removed: without it the unit would fail to start. systemd
        # takes an empty one for none.
        SetCredential = lib.mkIf (joinTicketFile != null) [ "join.ticket:removed" ];
        ReadWritePaths = lib.mkIf ownDataDir [ data_dir ];
      };
    };

    systemd.tmpfiles.settings = lib.mkIf ownDataDir {
      "20-blixard-data".${data_dir}.d = {
        mode = "0700";
        user = "blixard";
        group = "blixard";
      };
    };

    networking.firewall.allowedUDPPorts = lib.mkIf cfg.openFirewall [ port ];
  };
}
