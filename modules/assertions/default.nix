# Mistakes that show before anything is built. Each message begins with the option to change.
{
  imports = [
    ./members.nix
    ./settings.nix
    ./directories.nix
  ];
}
