# An agent is killed again and again under load: it opens its store every time.
import ./story.nix "store_kills"
