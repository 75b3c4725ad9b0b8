# A machine that is gone is removed by force and replaced; it comes back and disturbs nobody.
import ./story.nix "remove_and_replace"
