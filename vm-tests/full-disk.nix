# A node's disk is full: it says so, the others go on, and it comes back once there is space.
import ./story.nix "full_disk"
