# Three machines with the same configuration form one cluster, in any order and by themselves.
import ./story.nix "form_cluster"
