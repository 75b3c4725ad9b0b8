# One node of a cluster of three, as the README shows it. `cargo xtask nix` evaluates it and reads it back.
{
  networking.hostName = "n1";

  services.blixard = {
    enable = true;
    openFirewall = true;
    keyFile = "/var/lib/blixard-keys/node.key";
    cluster.members = {
      n1.endpointId = "618888c8c9008bc18764c371172c01620d1449df1420dba2ecf7b61054a82878";
      n1.addresses = [ "10.77.0.1:7431" ];
      n2.endpointId = "66a1549e165e0dedee22af291c2360c49458d866be52be28b87d7a6533a57719";
      n2.addresses = [ "10.77.0.2:7431" ];
      n3.endpointId = "1fe460dba6a5803839dd336f230ce4cfcec72ffe3bea3051a7875104979869f7";
      n3.addresses = [ "10.77.0.3:7431" ];
    };
    settings.cluster_name = "lab";
    settings.resources.memory_mib = 2048;
  };

  # What every NixOS machine has to say and blixard does not care about.
  boot.loader.grub.enable = false;
  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
  system.stateVersion = "24.05";
  # Leaves the manual out, which takes longer to evaluate than everything else.
  documentation.nixos.enable = false;
}
