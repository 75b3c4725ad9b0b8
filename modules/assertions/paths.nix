# What can be said of a path without the machine it is on. Functions only.
{ lib }:
let
  quoted = builtins.toJSON;
  inStore = path: isIn builtins.storeDir path;

  # Whether `path` is `dir` or lies in it.
  isIn = dir: path: lib.hasPrefix (if dir == "/" then "/" else "${dir}/") "${path}/";
  isInOne = dirs: path: lib.any (dir: isIn dir path) dirs;

  # Units read these as something else: a separator, a quote, a specifier, a variable, a pattern.
  special = [
    " "
    "\t"
    "\n"
    "\""
    "'"
    "\\"
    "%"
    "$"
    "*"
    "?"
    "["
  ];
  isPlain = path: !lib.any (character: lib.hasInfix character path) special;

  # Written in one way only: nothing doubled, nothing that leads back, no slash at the end.
  isNormal =
    path:
    path == "/"
    || lib.all (part: part != "" && part != "." && part != "..") (lib.tail (lib.splitString "/" path));

  # The agent's unit and the template have ProtectHome=yes.
  homes = [
    "/home"
    "/root"
    "/run/user"
  ];
  # Emptied at every boot, or not made of files at all. The units have a /tmp and a /var/tmp of their own.
  passing = [
    "/dev"
    "/proc"
    "/run"
    "/sys"
    "/tmp"
    "/var/lock"
    "/var/run"
    "/var/tmp"
  ];
  systems = [
    "/bin"
    "/boot"
    "/etc"
    "/lib"
    "/lib64"
    "/nix"
    "/sbin"
    "/usr"
  ];
  # Others have something in these: a directory in one of them is right, the directory itself is not.
  shared = [
    "/"
    "/media"
    "/mnt"
    "/opt"
    "/srv"
    "/var"
    "/var/cache"
    "/var/db"
    "/var/empty"
    "/var/lib"
    "/var/lib/private"
    "/var/log"
    "/var/spool"
  ];
in
{
  inherit
    quoted
    inStore
    isIn
    isInOne
    homes
    ;

  # Why a unit cannot be given this path, as the end of a sentence; null if it can.
  notInUnit =
    path:
    if !lib.hasPrefix "/" path then
      "is not an absolute path."
    else if !isPlain path then
      "has a character that systemd reads as something else (a space, a quote, a backslash or one of %$*?[);"
      + " choose a path without."
    else if !isNormal path then
      "is not the shortest way to write it; leave out doubled slashes, one at the end, and the parts . and .."
    else
      null;

  # Why a unit with ProtectHome=yes finds nothing there; null if it may.
  hidden =
    path:
    if isInOne homes path then
      "lies in a home directory, which the units are kept out of (ProtectHome=)."
    else
      null;

  # Why this cannot be a directory of blixard's own; null if it can.
  notOurs =
    path:
    if inStore path then
      "lies in the Nix store, which nobody writes to."
    else if isInOne passing path then
      "does not last: what is there is gone after a restart, or is not a file; choose another place."
    else if isInOne systems path then
      "belongs to the system; choose another place, as in /var/lib or /srv."
    else if lib.elem path shared then
      "is not blixard's alone; name a directory in it, as in ${
        if path == "/" then "/srv/blixard" else "${path}/blixard"
      }."
    else
      null;

  # The first thing that is wrong, of a list of what `notInUnit` and its like give.
  first = lib.findFirst (problem: problem != null) null;
}
