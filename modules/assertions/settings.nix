# Settings that contradict each other, the machine, or an option that says the same.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.blixard;
  inherit (cfg) keyFile settings;
  inherit (cfg.cluster) joinTicketFile members;
  inherit (pkgs.stdenv) hostPlatform;

  inherit (import ./paths.nix { inherit lib; }) inStore quoted;
  credentials = import ../credentials.nix { inherit lib; };

  # A secret in a file on the machine, which systemd hands to the agent.
  ofSecret = option: file: {
    assertion = file == null || !inStore file;
    message =
      "${option}: ${toString file} lies in the Nix store, where every user can read it; name a file on the"
      + " machine, as a string.";
  };

  ofAlone = option: given: {
    assertion = !given || members == { };
    message =
      "${option}: a node that services.blixard.cluster.members lists is admitted because it is listed; leave"
      + " one of the two out.";
  };

  # What the module itself writes into the settings can be said in one place only.
  ofWritten = key: written: instead: {
    assertion = (settings.${key} or null) == written;
    message = "services.blixard.settings.${key}: ${instead}";
  };
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      (ofSecret "services.blixard.keyFile" keyFile)
      (ofSecret "services.blixard.cluster.joinTicketFile" joinTicketFile)
      (ofAlone "services.blixard.cluster.joinTicketFile" (joinTicketFile != null))
      (ofAlone "services.blixard.settings.join" settings.join)
      {
        assertion = settings.port != 0;
        message = "services.blixard.settings.port: 0 is no port that the other members could reach.";
      }
      {
        assertion = hostPlatform.isx86_64 || settings.vms.accel != "kvm";
        message =
          "services.blixard.settings.vms.accel: kvm runs guests of the machine's own architecture only, this"
          + " one is ${hostPlatform.system} and guests are x86_64; leave it out, or set tcg.";
      }
      (ofWritten "key_file" (credentials.pathOf "node.key" keyFile)
        "use services.blixard.keyFile, which hands the key to the unprivileged agent."
      )
      (ofWritten "join_ticket_file" (credentials.pathOf "join.ticket" joinTicketFile) (
        "use services.blixard.cluster.joinTicketFile, which hands the ticket to the unprivileged agent."
      ))
      (ofWritten "members" (lib.mapAttrs (_: member: {
        endpoint_id = member.endpointId;
        inherit (member) addresses;
      }) members) "declare members in services.blixard.cluster.members, and there alone.")
    ];
  };
}
