# Directories that may lie on a file system of their own, and the units that have to do with them. Functions
# only.
{
  config,
  lib,
  utils,
}:
let
  points =
    lib.mapAttrsToList (_: system: system.mountPoint) config.fileSystems
    ++ map (mount: mount.where) config.systemd.mounts;
  isOn = dir: point: point != "/" && lib.hasPrefix "${point}/" "${dir}/";
in
{
  # The mounts that lead to a directory. The root is always there.
  mountsOf =
    dir:
    map (point: "${utils.escapeSystemdPath point}.mount") (lib.unique (lib.filter (isOn dir) points));

  # The unit that makes it: see directories.nix.
  unitOf = dir: "blixard-directory-${utils.escapeSystemdPath dir}.service";
}
