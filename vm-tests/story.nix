# The NixOS test of a story: its machines, and its script with common.py before it, as in the lab.
story:
{ testers, blixard }:
let
  machines = builtins.fromJSON (builtins.readFile ./machines.json);
in
testers.runNixOSTest {
  imports = [ (import ./cluster.nix (machines.${story} or { })) ];
  name = "blixard-${builtins.replaceStrings [ "_" ] [ "-" ] story}";
  testScript = builtins.readFile ./common.py + builtins.readFile (./. + "/${story}.py");
  defaults.services.blixard.package = blixard;
}
