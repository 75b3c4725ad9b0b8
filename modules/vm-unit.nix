# blixard-vm@.service: the package's template; only the agent starts it, and a switch leaves running VMs
# alone.
{ config, lib, ... }:
let
  cfg = config.services.blixard;
  # The template has the package's own directory; the others are made here and added to it.
  addedDirs = lib.remove "/var/lib/blixard-disks" cfg.settings.vms.disk_dirs;
in
{
  config = lib.mkIf cfg.enable {
    systemd.services."blixard-vm@" = {
      overrideStrategy = "asDropin";
      restartIfChanged = false;
      serviceConfig.ReadWritePaths = lib.mkIf (addedDirs != [ ]) addedDirs;
    };

    systemd.tmpfiles.settings = lib.mkIf (addedDirs != [ ]) {
      "20-blixard-disks" = lib.genAttrs addedDirs (_: {
        d = {
          mode = "2770";
          user = "root";
          group = "blixard-disk";
        };
      });
    };
  };
}
