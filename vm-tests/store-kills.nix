# An agent is killed again and again under load: it opens its store every time.
{ testers, blixard }:
testers.runNixOSTest {
  imports = [ ./cluster.nix ];
  name = "blixard-store-kills";
  testScript = builtins.readFile ./store_kills.py;
  defaults.services.blixard.package = blixard;
}
