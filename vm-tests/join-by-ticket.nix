# Machines join with a ticket, and vote in the place of one that is lost.
import ./story.nix "join_by_ticket"
