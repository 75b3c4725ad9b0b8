# Three machines with the same configuration form one cluster, in any order and by themselves.
{ testers, blixard }:
testers.runNixOSTest {
  imports = [ ./cluster.nix ];
  name = "blixard-form-cluster";
  testScript = builtins.readFile ./form_cluster.py;
  defaults.services.blixard.package = blixard;
}
