# blixard-directory-DIR.service: makes a directory of blixard's on the file system that it lies on.
#
# Not by tmpfiles.d: those are made at boot, and on the root disk when the file system is mounted later.
{
  config,
  lib,
  utils,
  ...
}:
let
  cfg = config.services.blixard;
  inherit (cfg.settings) data_dir;
  disk_dirs = import ./disk-dirs.nix { inherit config lib; };

  places = import ./places.nix { inherit config lib utils; };

  # The package's own directories have these modes always; another one that is there is somebody's, and the
  # colons leave it as it is.
  makeService = path: line: {
    description = "Directory ${path} of blixard";
    unitConfig.RequiresMountsFor = [ path ];
    # With the agent, so that disks can be put there before there is a VM; and whenever it is mounted.
    wantedBy = [ "blixard.service" ] ++ places.mountsOf path;
    # Another systemd changes this unit, and nothing of the directory. The agent requires that of its data: a
    # switch that stopped it would stop the agent too, for as long as the switch takes.
    restartIfChanged = false;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${config.systemd.package}/bin/systemd-tmpfiles --create -";
      StandardInput = "data";
      StandardInputText = "d ${path} ${line}";
    };
  };
  dataLine = ":0700 :blixard :blixard";
  diskLine =
    dir:
    if dir == "/var/lib/blixard-disks" then
      "3770 root blixard-disk"
    else
      ":3770 :root :blixard-disk";

  # The default has systemd's StateDirectory=.
  lines =
    lib.optionalAttrs (data_dir != "/var/lib/blixard") { ${data_dir} = dataLine; }
    // lib.genAttrs disk_dirs diskLine;
in
{
  config = lib.mkIf cfg.enable {
    systemd.services = lib.mapAttrs' (
      path: line: lib.nameValuePair (lib.removeSuffix ".service" (places.unitOf path)) (makeService path line)
    ) lines;
  };
}
