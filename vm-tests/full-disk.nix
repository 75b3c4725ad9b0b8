# A node's disk is full: it says so, the others go on, and it comes back once there is space.
{ testers, blixard }:
testers.runNixOSTest {
  imports = [ ./cluster.nix ];
  name = "blixard-full-disk";
  testScript = builtins.readFile ./full_disk.py;
  defaults.services.blixard.package = blixard;
}
