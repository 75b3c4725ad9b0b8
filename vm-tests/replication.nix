# A VM created through any node shows on every node, and its unit runs on exactly one.
{ testers, blixard }:
testers.runNixOSTest {
  imports = [ ./cluster.nix ];
  name = "blixard-replication";
  testScript = builtins.readFile ./replication.py;
  defaults.services.blixard.package = blixard;
}
