# Directories: where the agent and the VMs write. A wrong one would be a restart loop, or would take a
# directory away from others.
{ config, lib, ... }:
let
  cfg = config.services.blixard;
  inherit (cfg.settings) data_dir socket;
  disk_dirs = import ../disk-dirs.nix { inherit config lib; };
  inherit (cfg.settings.net) relay_ca_file;
  shared = map (dir: dir.path) (
    lib.filter (dir: lib.isAttrs dir && dir.shared) cfg.settings.vms.disk_dirs
  );

  paths = import ./paths.nix { inherit lib; };
  inherit (paths) quoted isIn;

  dataDir = "services.blixard.settings.data_dir";
  diskDirs = "services.blixard.settings.vms.disk_dirs";

  problemOf =
    path:
    paths.first [
      (paths.notInUnit path)
      (paths.hidden path)
      (paths.notOurs path)
    ];
  isFine = path: problemOf path == null;

  from = option: path: problem: {
    assertion = problem == null;
    message = "${option}: ${quoted path} ${toString problem}";
  };

  ofDiskDir =
    dir:
    from diskDirs dir (
      paths.first [
        (problemOf dir)
        (
          if isIn "/var/lib/blixard" dir then
            "lies in the agent's own directory, which VMs cannot enter; choose another place, as in /var/lib."
          else
            null
        )
      ]
    );

  # Two directories that are one, or of which one lies in the other. Each has an owner and a mode of its own.
  areApart = one: other: !isIn one other && !isIn other one;
  ofOverlap = option: dir: other: {
    assertion = false;
    message =
      "${option}: ${quoted dir} and ${other} are one directory, or one lies in the other; take them apart.";
  };
  withData = lib.filter (dir: !areApart dir data_dir) (lib.filter isFine disk_dirs);
  pairs = lib.concatLists (
    lib.imap1 (number: dir: map (other: { inherit dir other; }) (lib.drop number disk_dirs)) disk_dirs
  );
  crowded = lib.filter (
    pair: isFine pair.dir && isFine pair.other && !areApart pair.dir pair.other
  ) pairs;

  ofSocket = from "services.blixard.settings.socket" socket (
    paths.first [
      (
        if lib.hasPrefix "/run/blixard/" socket then
          null
        else
          "is not in /run/blixard, the one directory for sockets that the unit has."
      )
      (paths.notInUnit socket)
    ]
  );

  ofRelayCa = from "services.blixard.settings.net.relay_ca_file" relay_ca_file (
    paths.first [
      (if lib.hasPrefix "/" relay_ca_file then null else "is not an absolute path.")
      (paths.hidden relay_ca_file)
    ]
  );
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      (from dataDir data_dir (problemOf data_dir))
      ofSocket
    ]
    ++ lib.optional (relay_ca_file != null) ofRelayCa
    ++ map ofDiskDir disk_dirs
    ++ lib.optionals (isFine data_dir) (
      map (dir: ofOverlap diskDirs dir "${dataDir} ${quoted data_dir}") withData
    )
    ++ map (pair: ofOverlap diskDirs pair.dir (quoted pair.other)) crowded;

    # VMs open disks as members of this group, and NFS or Ceph know its number alone. Left to each node it is
    # another one there, and a VM that is failed over would not get at its disk.
    warnings = lib.optional (shared != [ ] && config.users.groups.blixard-disk.gid == null) (
      "users.groups.blixard-disk.gid: nodes share ${lib.concatMapStringsSep ", " quoted shared}, where files"
      + " belong to this group by its number; set the same one on every node."
    );
  };
}
