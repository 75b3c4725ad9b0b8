//! Planted bugs, to measure whether the tests would find them.
//!
//! A build with `--cfg blixard_mutants` holds all of them, and the variable `BLIXARD_MUTANT` lets one live.
//! Without that `cfg` the places are constants that the compiler removes; a release build with it is refused.
//! `cargo xtask mutants` builds and runs them in the simulator.

#[cfg(all(blixard_mutants, not(debug_assertions)))]
compile_error!("planted bugs do not go into a release build: drop --cfg blixard_mutants");

/// Whether the planted bug of this name lives in this process.
#[cfg(blixard_mutants)]
pub fn lives(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("BLIXARD_MUTANT").ok()).as_deref() == Some(name)
}

/// Whether the planted bug of this name lives in this process: none does.
#[cfg(not(blixard_mutants))]
pub const fn lives(_name: &str) -> bool {
    false
}
