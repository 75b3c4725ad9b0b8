# Two machines that run VMs, and a witness that votes and is never given one.
import ./story.nix "two_and_a_witness"
