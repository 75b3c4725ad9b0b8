# The NixOS tests by name: each a story of this directory on NixOS machines. They are the package's
# passthru.tests.
{ testers, blixard }:
let
  story = file: import file { inherit testers blixard; };
in
{
  form-cluster = story ./form-cluster.nix;
  replication = story ./replication.nix;
  node-churn = story ./node-churn.nix;
  store-kills = story ./store-kills.nix;
  full-disk = story ./full-disk.nix;
  renumber = story ./renumber.nix;
}
