# The users and groups of the package's sysusers file. NixOS declares users itself and does not read those
# files.
{ config, lib, ... }:
let
  cfg = config.services.blixard;
in
{
  config = lib.mkIf cfg.enable {
    users.users.blixard = {
      isSystemUser = true;
      group = "blixard";
      # For the consoles of VMs. Not blixard-disk: disks are for VMs alone.
      extraGroups = [ "systemd-journal" ];
      home = "/var/lib/blixard";
      description = "Blixard agent";
    };
    # Whoever is in `blixard` may use the agent's socket.
    users.groups.blixard = { };
    users.groups.blixard-disk = { };
  };
}
