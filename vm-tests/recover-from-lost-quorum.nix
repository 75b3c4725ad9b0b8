# Two of three disks break for good: the last node goes on alone when it is told to.
import ./story.nix "recover_from_lost_quorum"
