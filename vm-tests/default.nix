# The NixOS tests by name, one for each file of stories/. They are the package's passthru.tests.
{ testers, blixard }:
let
  # Of "form_cluster.py": "form_cluster"; of any other file: null.
  nameOf =
    file:
    let
      found = builtins.match "([a-z0-9_]+)[.]py" file;
    in
    if found == null then null else builtins.head found;

  # What a story says of itself: TOML in its first lines, each behind "# ", before its description.
  factsOf =
    text:
    let
      lines = builtins.head (builtins.split "\"\"\"" text);
    in
    builtins.fromTOML (builtins.replaceStrings [ "\n# " ] [ "\n" ] ("\n" + lines));

  # The part of that which says what machines there are.
  castOf = builtins.intersectAttrs (builtins.functionArgs (import ./cluster.nix));

  readStory =
    name:
    let
      text = builtins.readFile (./stories + "/${name}.py");
      facts = factsOf text;
    in
    {
      inherit name text;
      inherit (facts) minutes_max;
      cast = castOf facts;
    };

  stories = map readStory (
    builtins.filter (name: name != null) (map nameOf (builtins.attrNames (builtins.readDir ./stories)))
  );

  # Stories with the same machines share their evaluation, which is nearly all that there is to evaluate.
  machinesOf =
    cast:
    (testers.runNixOSTest {
      imports = [ (import ./cluster.nix cast) ];
      name = "blixard-machines";
      testScript = "";
      defaults.services.blixard.package = blixard;
    }).nodes;
  evaluated = builtins.listToAttrs (
    map (story: {
      name = builtins.toJSON story.cast;
      value = machinesOf story.cast;
    }) stories
  );

  attributeOf = builtins.replaceStrings [ "_" ] [ "-" ];
in
builtins.listToAttrs (
  map (story: {
    name = attributeOf story.name;
    value = import ./story.nix {
      inherit testers;
      inherit (story) minutes_max text;
      name = attributeOf story.name;
      machines = evaluated.${builtins.toJSON story.cast};
    };
  }) stories
)
