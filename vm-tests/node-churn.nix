# Machines crash, one by one and all at once: nothing that was acknowledged is lost.
{ testers, blixard }:
testers.runNixOSTest {
  imports = [ ./cluster.nix ];
  name = "blixard-node-churn";
  testScript = builtins.readFile ./node_churn.py;
  defaults.services.blixard.package = blixard;
}
