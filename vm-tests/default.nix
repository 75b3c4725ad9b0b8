# The NixOS tests by name: each a story of this directory on NixOS machines. They are the package's
# passthru.tests.
{ testers, blixard }:
let
  casts = builtins.fromJSON (builtins.readFile ./machines.json);

  # Stories with the same machines share their evaluation, which is nearly all that there is to evaluate.
  machinesOf =
    cast:
    (testers.runNixOSTest {
      imports = [ (import ./cluster.nix cast) ];
      name = "blixard-machines";
      testScript = "";
      defaults.services.blixard.package = blixard;
    }).nodes;
  evaluated = builtins.listToAttrs (
    map (cast: {
      name = builtins.toJSON cast;
      value = machinesOf cast;
    }) ([ { } ] ++ builtins.attrValues casts)
  );

  story =
    file:
    import file {
      inherit testers;
      machines = name: evaluated.${builtins.toJSON (casts.${name} or { })};
    };
in
{
  form-cluster = story ./form-cluster.nix;
  replication = story ./replication.nix;
  node-churn = story ./node-churn.nix;
  store-kills = story ./store-kills.nix;
  full-disk = story ./full-disk.nix;
  renumber = story ./renumber.nix;
  join-by-ticket = story ./join-by-ticket.nix;
  remove-and-replace = story ./remove-and-replace.nix;
  leader-leaves = story ./leader-leaves.nix;
  two-and-a-witness = story ./two-and-a-witness.nix;
  recover-from-lost-quorum = story ./recover-from-lost-quorum.nix;
  backup-restore = story ./backup-restore.nix;
  all-nodes-replaced-one-by-one = story ./all-nodes-replaced-one-by-one.nix;
}
