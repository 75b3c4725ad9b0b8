# Names, addresses and the list of members.
{ config, lib, ... }:
let
  cfg = config.services.blixard;
  inherit (cfg.settings)
    node_name
    listen_address
    port
    advertise_addresses
    ;

  members = cfg.cluster.members;
  names = lib.attrNames members;

  quoted = builtins.toJSON;
  isName = name: builtins.match "[a-z]([a-z0-9-]{0,46}[a-z0-9])?" name != null;
  nameRule = "it has to be 1 to 48 of a-z, 0-9 and -, first a letter, last not -.";

  # An IPv4 address, or an IPv6 address in brackets, and a port. The agent checks the rest at build time.
  isAddress =
    address:
    let
      parts = builtins.match "([0-9.]+|\\[[0-9a-fA-F:.]+]):([1-9][0-9]{0,4})" address;
    in
    parts != null && lib.toInt (lib.last parts) < 65536;

  # 0.0.0.0, or zeros in brackets.
  isUnspecified = address: builtins.match "(0\\.0\\.0\\.0|\\[[0:]+]):.*" address != null;
  isLoopback = address: builtins.match "(127\\.[0-9.]+|\\[[0:]*:0*1]):.*" address != null;

  # Its port; null where there is none, which is another mistake.
  portOf =
    address:
    let
      parts = builtins.match ".*:([1-9][0-9]{0,4})" address;
    in
    if parts == null then null else lib.toInt (lib.head parts);

  # Every address of every member, with the member's name.
  places = lib.concatMap (
    name: map (address: { inherit name address; }) members.${name}.addresses
  ) names;
  onOneMachine = lib.all (place: isLoopback place.address) places;

  # Addresses that are there more than once, with the names of those that have them.
  crowded = lib.filterAttrs (_: having: lib.length having > 1) (
    lib.groupBy (place: place.address) places
  );

  # Endpoint ids that more than one member has, with those members' names.
  shared = lib.filterAttrs (_: sharing: lib.length sharing > 1) (
    lib.groupBy (name: members.${name}.endpointId) names
  );

  ofNode = [
    {
      assertion = isName node_name;
      message =
        "services.blixard.settings.node_name: ${quoted node_name} is not a node name; ${nameRule}"
        + " It is networking.hostName unless it is set.";
    }
    {
      assertion = members == { } || members ? ${node_name};
      message =
        "services.blixard.cluster.members: this node, ${quoted node_name}, is not among"
        + " ${lib.concatStringsSep ", " names}; list it, or set services.blixard.settings.node_name.";
    }
  ];

  ofAddress = option: address: {
    assertion = isAddress address;
    message =
      "${option}: ${quoted address} is not an IP address with a port, as in 10.77.0.1:7431 or"
      + " [fd00::1]:7431; names are not looked up.";
  };

  ofPlace =
    place:
    let
      option = "services.blixard.cluster.members.${place.name}.addresses";
    in
    [
      {
        assertion = !isUnspecified place.address;
        message =
          "${option}: ${quoted place.address} is the unspecified address;"
          + " write one that the others can send to.";
      }
      {
        assertion = lib.length names < 2 || onOneMachine || !isLoopback place.address;
        message =
          "${option}: ${quoted place.address} is a loopback address, and not every member has nothing else;"
          + " write an address of the network.";
      }
    ];

  ofCrowded = address: having: {
    assertion = false;
    message =
      "services.blixard.cluster.members: ${address} is listed more than once"
      + " (${lib.concatMapStringsSep ", " (place: place.name) having}); correct all but one.";
  };

  ofMember =
    name:
    [
      {
        assertion = isName name;
        message = "services.blixard.cluster.members: ${quoted name} is not a node name; ${nameRule}";
      }
    ]
    ++ map (ofAddress "services.blixard.cluster.members.${name}.addresses") members.${name}.addresses;

  ofShared = endpointId: sharing: {
    assertion = false;
    message =
      "services.blixard.cluster.members: ${lib.concatStringsSep " and " sharing} have the same endpointId,"
      + " ${endpointId}; every node has a key of its own.";
  };

  # Where this node listens beside what its own entry says. A port forward may be why they differ; what is
  # advertised instead says so.
  own = lib.optionals (advertise_addresses == [ ]) (members.${node_name} or { addresses = [ ]; }).addresses;
  isOtherPort = own != [ ] && !lib.any (address: portOf address == port) own;
  # Of IPv4 alone: an IPv6 address can be written in many ways.
  isOtherAddress =
    own != [ ]
    && listen_address != "0.0.0.0"
    && builtins.match "[0-9.]+" listen_address != null
    && !lib.any (lib.hasPrefix "${listen_address}:") own;
  unreachable =
    option: value:
    "services.blixard.settings.${option}: the agent listens on ${value}, and"
    + " services.blixard.cluster.members.${node_name}.addresses has no address with it, so the others will"
    + " not reach this node; let the two agree, or say in services.blixard.settings.advertise_addresses where"
    + " it is reached.";
in
{
  config = lib.mkIf cfg.enable {
    assertions =
      ofNode
      ++ lib.concatMap ofMember names
      ++ lib.mapAttrsToList ofShared shared
      ++ lib.concatMap ofPlace places
      ++ lib.mapAttrsToList ofCrowded crowded
      ++ map (ofAddress "services.blixard.settings.advertise_addresses") advertise_addresses;

    warnings =
      lib.optional isOtherPort (unreachable "port" (toString port))
      ++ lib.optional isOtherAddress (unreachable "listen_address" listen_address);
  };
}
