# Secrets that systemd reads as root and hands to the agent, which is not root. Functions only.
{ lib }:
let
  # A unit's text has specifiers: a percent sign of the path has to be doubled.
  literal = lib.replaceStrings [ "%" ] [ "%%" ];
in
{
  # Where the agent finds it; null without a file.
  pathOf = name: file: if file == null then null else "/run/credentials/blixard.service/${name}";

  # A value for LoadCredential=.
  load = name: file: "${name}:${literal file}";

  # A value for SetCredential=: what there is instead when the file is missing, or is none. Without it the
  # unit would fail before the agent runs, with "Protocol error" and no file named.
  instead = name: text: "${name}:${lib.replaceStrings [ "\\" ] [ "\\\\" ] text}";
}
