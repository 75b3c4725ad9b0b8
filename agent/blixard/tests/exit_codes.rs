//! The exit codes of an agent are the ones that its help names.

use std::process::Command;

use blixard_daemon::{EXIT_DISK_FAILED, EXIT_DISK_FULL, EXIT_STORE_LOST};

#[test]
fn the_agents_help_names_its_exit_codes() {
    let binary = env!("CARGO_BIN_EXE_blixard");
    let output = Command::new(binary).args(["agent", "--help"]).output().expect("the binary runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        format!("  {EXIT_STORE_LOST}  the store counts as lost"),
        format!("  {EXIT_DISK_FAILED}  the disk of the data directory failed\n"),
        format!("  {EXIT_DISK_FULL}  the disk of the data directory is full"),
    ] {
        assert!(help.contains(&line), "{line}: {help}");
    }
}
