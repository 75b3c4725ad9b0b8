# The leader leaves under load, and then the next one, until one member is left.
import ./story.nix "leader_leaves"
