# The machines of a story and the guest their VMs run: gives a module of a NixOS test. The arguments are what
# the story says of itself in its first lines; the lab reads them as well.
{
  # One cluster, by itself: each has all of them in its list of members.
  listed ? [
    "n1"
    "n2"
    "n3"
  ],
  # Without a list: they wait for a ticket.
  unlisted ? [ ],
  # What a machine's config.toml has otherwise, by the machine's name.
  settings ? { },
}:
{ lib, ... }:
let
  # The public halves of the test-only keys in keys/.
  endpointIds = {
    n1 = "5e0313227f1ccb33ddf976bc5977484f8224ce5d3f09ccaf7d8aa764784f7c95";
    n2 = "34d508013196c132687b39c41daa0b4f404a6fee7846d5d1e38a0038ff407d98";
    n3 = "3bc42faac2c0bb3848f81430987736820c18a121673abc38394c10f760bbfcc6";
    n4 = "db894d94e3c72dd690aef8a8aaddef93e7d19fced2d6c7ddd85a7cec90d632a2";
    n5 = "2aa8546523918ba106baae8e48495f41cd0b65d8c5581f63acd42f341a02085a";
  };

  machine =
    name:
    {
      config,
      nodes,
      pkgs,
      ...
    }:
    let
      inherit (config.services.blixard.settings) port;
      guest = pkgs.callPackage ./guest.nix { };
      isListed = lib.elem name listed;
      everywhere = {
        cluster_name = "lab";
        # The machine is a VM itself; whoever runs the test may not have nested virtualization.
        vms.accel = "tcg";
        # What the stories count on, as on the lab's machines. Few of their VMs are ever started.
        resources = {
          cpus = 16;
          memory_mib = 4096;
        };
      };
    in
    {
      imports = [ ../modules ];

      services.blixard = {
        enable = true;
        openFirewall = true;
        keyFile = "/etc/blixard-test/node.key";
        cluster.members = lib.optionalAttrs isListed (
          lib.genAttrs listed (member: {
            endpointId = endpointIds.${member};
            addresses = [ "${nodes.${member}.networking.primaryIPAddress}:${toString port}" ];
          })
        );
        settings = lib.mkMerge [
          (lib.mapAttrsRecursive (_: lib.mkDefault) everywhere)
          (lib.optionalAttrs (!isListed) { join = true; })
          (settings.${name} or { })
        ];
      };

      environment.etc = {
        # With a mode it is a file of its own and no link into the store, like a key that an operator has put
        # there.
        "blixard-test/node.key" = {
          source = ./keys + "/${name}.key";
          mode = "0400";
        };
        "blixard-guest/vmlinux".source = "${guest}/vmlinux";
        "blixard-guest/initrd".source = "${guest}/initrd";
      };

      # What the stories call beside blixard itself.
      environment.systemPackages = [
        pkgs.iproute2
        pkgs.jq
        pkgs.netcat
        pkgs.nftables
      ];

      virtualisation = {
        cores = 2;
        memorySize = 2048;
      };
    };
in
{
  nodes = lib.genAttrs (listed ++ unlisted) machine;
}
