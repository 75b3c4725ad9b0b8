{
  description = "A few NixOS machines become one home for microVMs";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem =
        make:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: make (nixpkgs.legacyPackages.${system}.extend self.overlays.default));
    in
    {
      overlays.default = final: prev: {
        blixard = final.callPackage ./modules/package.nix { };
      };

      packages = forEachSystem (pkgs: {
        inherit (pkgs) blixard;
        default = pkgs.blixard;
      });

      # One import is enough: the module brings its package. An overlay's `blixard` takes its place, and
      # `services.blixard.package` that of both.
      nixosModules.default =
        { lib, pkgs, ... }:
        {
          imports = [ ./modules ];
          services.blixard.package = lib.mkDefault (
            pkgs.blixard or self.packages.${pkgs.stdenv.hostPlatform.system}.blixard
          );
        };

      nixosConfigurations.example = lib.nixosSystem {
        modules = [
          self.nixosModules.default
          ./modules/example.nix
          { nixpkgs.hostPlatform = "x86_64-linux"; }
        ];
      };

      # The VM tests' microVMs are x86-64 ones, started by QEMU's microvm machine; the example is x86-64 too.
      checks = forEachSystem (
        pkgs:
        {
          inherit (pkgs) blixard;
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isx86_64 (
          pkgs.blixard.tests
          // {
            units = pkgs.callPackage ./modules/units-check.nix {
              inherit (self.nixosConfigurations) example;
            };
          }
        )
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo
            pkgs.clippy
            pkgs.rustc
            pkgs.rustfmt
            pkgs.qemu_kvm
          ];
          PROTOC = "${pkgs.blixard.protoc}/bin/protoc";
        };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree or pkgs.nixfmt);
    };
}
