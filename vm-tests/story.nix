# The NixOS test of a story: its script with common.py before it, as in the lab, on its machines. Those are
# evaluated already, and so no modules any more.
story:
{ testers, machines }:
testers.runNixOSTest (
  { lib, ... }:
  {
    name = "blixard-${builtins.replaceStrings [ "_" ] [ "-" ] story}";
    testScript = builtins.readFile ./common.py + builtins.readFile (./. + "/${story}.py");
    node.type = lib.mkForce lib.types.raw;
    nodes = machines story;
  }
)
