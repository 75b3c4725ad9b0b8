# Machines change their addresses, one at a time and all at once: they find each other again.
import ./story.nix "renumber"
