# All disks break: a backup that was made under load is restored.
import ./story.nix "backup_restore"
