# A VM created through any node shows on every node, and its unit runs on exactly one.
import ./story.nix "replication"
