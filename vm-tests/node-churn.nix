# Machines crash, one by one and all at once: nothing that was acknowledged is lost.
import ./story.nix "node_churn"
