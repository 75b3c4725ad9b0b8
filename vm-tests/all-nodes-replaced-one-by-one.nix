# Every machine of a cluster is replaced by one that joins with a ticket.
import ./story.nix "all_nodes_replaced_one_by_one"
