# /etc/blixard/config.toml: written from the options, and read by the agent itself before a system is built
# with it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.blixard;
  inherit (pkgs.stdenv) buildPlatform hostPlatform;

  # TOML has no null: an option left at null is a key that is not there.
  values = lib.filterAttrsRecursive (_: value: value != null) cfg.settings;
  unchecked = (pkgs.formats.toml { }).generate "blixard-config.toml" values;

  # A cross-built agent cannot run here; then the file is checked when the agent starts.
  check = lib.optionalString (buildPlatform.canExecute hostPlatform) ''
    ${cfg.package}/bin/blixard agent --config ${unchecked} --check-config
  '';
  checked = pkgs.runCommand "blixard-config.toml" { passthru = { inherit values; }; } ''
    ${check}
    cp ${unchecked} "$out"
  '';

  credentials = import ./credentials.nix { inherit lib; };
  written = name: file: lib.mkIf (file != null) (lib.mkDefault (credentials.pathOf name file));

  # The emulator of the node's own architecture alone is a much smaller closure; microVMs are x86-64 ones.
  qemu = if hostPlatform.isx86_64 then pkgs.qemu_kvm else pkgs.qemu;
in
{
  config = lib.mkIf cfg.enable {
    # Defaults, so that whoever sets one of them as well learns from an assertion what to use instead.
    services.blixard.settings = {
      members = lib.mkDefault (
        lib.mapAttrs (_: member: {
          endpoint_id = member.endpointId;
          inherit (member) addresses;
        }) cfg.cluster.members
      );
      # The agent makes a key where there is none, but never in place of one that systemd was to hand over.
      key_file = written "node.key" cfg.keyFile;
      join_ticket_file = written "join.ticket" cfg.cluster.joinTicketFile;
      # A witness runs no VM, so that its system needs no QEMU.
      vms.qemu = lib.mkDefault (
        if cfg.settings.role == "witness" then null else "${qemu}/bin/qemu-system-x86_64"
      );
    };

    environment.etc."blixard/config.toml".source = checked;

    # The unit names the file in /etc and not its store path, so a change has to be said.
    systemd.services.blixard.restartTriggers = [ checked ];
    # It reads one key of the file, and ends where there is nothing for it to do.
    systemd.services.blixard-last-resort = {
      overrideStrategy = "asDropin";
      wantedBy = lib.optional (cfg.settings.last_resort == "reboot") "multi-user.target";
      restartTriggers = [ cfg.settings.last_resort ];
      # Not stopped while the switch goes on: VMs run meanwhile.
      stopIfChanged = false;
    };
  };
}
