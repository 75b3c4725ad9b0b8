# blixard-vm@.service: the package's template; only the agent starts it, and a switch leaves running VMs
# alone. It is stopped when the template goes (X-StopOnRemoval= stays as it is): the cluster counts on an
# agent to end what it has placed here, and there is none any more.
{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.services.blixard;
  disk_dirs = import ./disk-dirs.nix { inherit config lib; };

  places = import ./places.nix { inherit config lib utils; };
  # Not required: a change of one of these units must not reach a running VM.
  made = map places.unitOf disk_dirs;
  # The template has the package's own directory.
  addedDirs = lib.remove "/var/lib/blixard-disks" disk_dirs;
in
{
  config = lib.mkIf cfg.enable {
    systemd.services."blixard-vm@" = {
      overrideStrategy = "asDropin";
      restartIfChanged = false;
      # A VM is never given a disk of the directory below a mount point in place of the one that it was.
      unitConfig.RequiresMountsFor = disk_dirs;
      wants = made;
      after = made;
      serviceConfig.ReadWritePaths = lib.mkIf (addedDirs != [ ]) addedDirs;
    };
  };
}
