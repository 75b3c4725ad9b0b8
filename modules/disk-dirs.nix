# The paths of the directories that VM disks may lie in, whatever else is said of them.
{ config, lib }:
map (dir: if lib.isAttrs dir then dir.path else dir) config.services.blixard.settings.vms.disk_dirs
