# The NixOS module of blixard: imports only. Options apart from configuration, assertions apart, one file per
# unit family.
{
  imports = [
    ./options.nix
    ./assertions
    ./config-file.nix
    ./users.nix
    ./directories.nix
    ./agent.nix
    ./vm-unit.nix
  ];
}
