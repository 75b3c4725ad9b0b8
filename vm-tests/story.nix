# The NixOS test of a story: its script with common.py before it, as in the lab, on its machines. Those are
# evaluated already, and so no modules any more.
{
  testers,
  name,
  text,
  machines,
  minutes_max,
}:
testers.runNixOSTest (
  { lib, ... }:
  {
    name = "blixard-${name}";
    testScript = builtins.readFile ./common.py + text;
    globalTimeout = 60 * minutes_max;
    node.type = lib.mkForce lib.types.raw;
    nodes = machines;
  }
)
