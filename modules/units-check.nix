# A check of the flake: what the module adds to the package's units, and what `nixos-rebuild switch` does to
# them while VMs run. A wrong unit ends the evaluation.
{
  lib,
  runCommand,
  # The NixOS system of example.nix.
  example,
}:
let
  elsewhere = {
    services.blixard.settings = {
      data_dir = "/srv/blixard";
      last_resort = "reboot";
      vms.disk_dirs = [
        "/var/lib/blixard-disks"
        {
          path = "/mnt/vms";
          shared = true;
        }
      ];
    };
  };
  nodes = {
    example = example.config.systemd.units;
    elsewhere = (example.extendModules { modules = [ elsewhere ]; }).config.systemd.units;
  };

  shipped = lib.attrNames (builtins.readDir ../agent/dist/systemd);

  # Only read, so that nothing of it has to be built.
  linesOf =
    units: name:
    lib.splitString "\n" (builtins.unsafeDiscardStringContext (units.${name}.text or ""));
  has =
    units: name: line:
    lib.elem line (linesOf units name);
  # The values of a key that names units, in all its lines.
  unitsIn =
    units: name: key:
    lib.concatMap (lib.splitString " ") (
      map (lib.removePrefix "${key}=") (lib.filter (lib.hasPrefix "${key}=") (linesOf units name))
    );

  # Each adds to what the package says. Any other key could replace it, as an empty value would.
  adding = [
    "After"
    "Environment"
    "LoadCredential"
    "ReadWritePaths"
    "Requires"
    "RequiresMountsFor"
    "SetCredential"
    "WantedBy"
    "Wants"
  ];
  isAddition =
    line:
    let
      parts = builtins.match "([A-Za-z-]+)=(.+)" line;
      key = lib.head parts;
    in
    parts != null && (lib.elem key adding || lib.hasPrefix "X-" key);
  isEntry = line: line != "" && !lib.hasPrefix "[" line;

  replaced =
    units: name:
    map (line: "${name}: `${line}` is more than an addition to the package's unit") (
      lib.filter (line: isEntry line && !isAddition line) (linesOf units name)
    )
    ++ lib.optional (
      units ? ${name} && units.${name}.overrideStrategy != "asDropin"
    ) "${name}: it takes the place of the package's unit";

  leftAlone =
    units: name:
    lib.optional (
      !has units name "X-RestartIfChanged=false"
    ) "${name}: a switch that changes it stops it";
  restarted =
    units: name:
    lib.optional (
      !has units name "X-StopIfChanged=false"
    ) "${name}: a switch stops it for as long as the switch takes";

  problemsOf =
    units:
    lib.concatMap (replaced units) shipped
    ++ restarted units "blixard.service"
    ++ restarted units "blixard-last-resort.service"
    # A stop of these stops the agent too.
    ++ lib.concatMap (leftAlone units) (unitsIn units "blixard.service" "Requires")
    ++ leftAlone units "blixard-vm@.service"
    ++ map (other: "blixard-vm@.service: Requires=${other} may stop VMs that run") (
      unitsIn units "blixard-vm@.service" "Requires"
    )
    ++ map (name: "${name}: nothing is to be added to it") (
      lib.filter (name: units ? ${name}) [
        "blixard-lease-dir.service"
        "blixard-vm-forget@.service"
      ]
    );

  problems = lib.concatLists (
    lib.mapAttrsToList (node: units: map (problem: "${node}: ${problem}") (problemsOf units)) nodes
  );
in
if problems == [ ] then
  runCommand "blixard-units-check" { } ''
    touch "$out"
  ''
else
  throw "the module's units are not as they have to be:\n- ${lib.concatStringsSep "\n- " problems}"
