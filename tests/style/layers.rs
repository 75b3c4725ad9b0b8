//! Which crate may depend on which, and what the pure crates may not use.

use super::Finding;
use super::rust::RustFile;

/// Every crate, by its folder under `agent/`, and the crates of ours on which it may depend.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("core", &["blixard-model"]),
    ("consensus", &["blixard-model"]),
    ("store", &["blixard-model", "blixard-consensus"]),
    ("node", &["blixard-model", "blixard-core", "blixard-consensus", "blixard-store"]),
    ("net", &["blixard-model"]),
    ("launcher", &["blixard-model"]),
    ("systemd", &["blixard-model", "blixard-core", "blixard-launcher"]),
    (
        "sim",
        &[
            "blixard-model",
            "blixard-core",
            "blixard-consensus",
            "blixard-store",
            "blixard-node",
            "blixard-launcher",
        ],
    ),
    ("xtask", &["blixard-model"]),
    ("hostile", &[]),
    (
        "fixtures",
        &[
            "blixard-model",
            "blixard-core",
            "blixard-consensus",
            "blixard-store",
            "blixard-node",
            "blixard-net",
            "blixard-launcher",
        ],
    ),
    ("cli", &["blixard-model"]),
    (
        "daemon",
        &[
            "blixard-model",
            "blixard-core",
            "blixard-consensus",
            "blixard-store",
            "blixard-node",
            "blixard-net",
            "blixard-launcher",
            "blixard-systemd",
        ],
    ),
    ("blixard", &["blixard-cli", "blixard-daemon", "blixard-launcher"]),
];

/// Libraries that only one crate may name, tests included.
const OWNED: &[(&str, &str)] = &[("raft", "consensus"), ("iroh", "net"), ("zbus", "systemd")];

/// Crates without a runtime for tasks: what runs in each VM's unit is small, and ends with its one thread.
const WITHOUT_RUNTIME: &[&str] = &["launcher"];

/// Files that decide outside the pure crates, by the beginning of their paths: time is an input to them.
const WITHOUT_CLOCK: &[&str] = &["agent/launcher/src/supervisor", "agent/launcher/src/stop_watch"];
/// How code gets at a clock.
const CLOCKS: &[&str] = &["Instant", "SystemTime", "clock", "clock_gettime", "ClockId", "boottime_ms"];

/// Crates in which time, randomness and I/O are inputs.
const PURE: &[&str] = &["model", "core", "consensus", "node"];
const IMPURE: &[&str] =
    &["tokio", "Instant", "SystemTime", "HashMap", "HashSet", "rand", "getrandom", "fastrand", "thread"];

/// Checks the dependencies in `agent/NAME/Cargo.toml`.
pub(crate) fn check_manifest(path: &str, text: &str) -> Vec<Finding> {
    let folder = path.split('/').nth(1).unwrap_or_default();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == folder) else {
        return vec![Finding::new(path, 1, format!("crate {folder} has no rule: add one to {}", file!()))];
    };
    let manifest: toml::Table = match toml::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(path, 1, error.to_string())],
    };
    let mut findings = Vec::new();
    for (name, is_dev) in dependencies(&manifest) {
        let line = text.lines().position(|line| line.trim_start().starts_with(&name)).map_or(1, |n| n + 1);
        let ours = name == "blixard" || name.starts_with("blixard-");
        if name == "blixard" || (ours && !is_dev && !allowed.contains(&name.as_str())) {
            findings.push(Finding::new(path, line, format!("{folder} may not depend on {name}")));
        }
        if !is_dev && WITHOUT_RUNTIME.contains(&folder) && is_of("tokio", &name) {
            findings.push(Finding::new(path, line, format!("{folder} does without tokio")));
        }
        for (library, owner) in OWNED {
            if is_of(library, &name) && folder != *owner {
                findings.push(Finding::new(path, line, format!("only {owner} names {library}")));
            }
        }
    }
    findings
}

/// Whether a package is this library, or one of those that come with it.
fn is_of(library: &str, package: &str) -> bool {
    package.strip_prefix(library).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// Names of the packages that a manifest depends on, and whether only tests do. A renamed dependency is
/// listed under its real name.
fn dependencies(manifest: &toml::Table) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for (kind, is_dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
    {
        if let Some(toml::Value::Table(table)) = manifest.get(kind) {
            let real = |alias: &String, value: &toml::Value| {
                value.get("package").and_then(toml::Value::as_str).unwrap_or(alias).to_owned()
            };
            found.extend(table.iter().map(|(alias, value)| (real(alias, value), is_dev)));
        }
    }
    if let Some(toml::Value::Table(targets)) = manifest.get("target") {
        found.extend(targets.values().filter_map(toml::Value::as_table).flat_map(dependencies));
    }
    found
}

/// Whether the file belongs to a pure crate.
pub(crate) fn is_pure(path: &str) -> bool {
    PURE.iter().any(|name| path.starts_with(&format!("agent/{name}/src/")))
}

/// Finds every name of a clock, a random source, a runtime or a map without an order, outside test code.
pub(crate) fn check_pure(file: &RustFile) -> Vec<Finding> {
    let named = file.tokens.iter().filter(|token| IMPURE.contains(&token.text.as_str()));
    named
        .filter(|token| !file.is_test_line(token.line))
        .map(|token| {
            Finding::new(&file.path, token.line, format!("{} in a pure crate: make it an input", token.text))
        })
        .collect()
}

/// Finds every use of a clock in a file that decides outside the pure crates.
pub(crate) fn check_clockless(file: &RustFile) -> Vec<Finding> {
    if !WITHOUT_CLOCK.iter().any(|beginning| file.path.starts_with(beginning)) {
        return Vec::new();
    }
    let named = file.tokens.iter().filter(|token| CLOCKS.contains(&token.text.as_str()));
    let shipped = named.filter(|token| !file.is_test_line(token.line));
    shipped
        .map(|token| Finding::new(&file.path, token.line, format!("{}: make the time an input", token.text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check_manifest(path, text).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_dependency_against_the_direction_is_found_with_its_line() {
        let text =
            "[package]\n[dependencies]\nblixard-model.workspace = true\nblixard-store.workspace = true\n";
        assert_eq!(
            whats("agent/core/Cargo.toml", text),
            ["agent/core/Cargo.toml:4: core may not depend on blixard-store"]
        );
        assert_eq!(
            whats("agent/cli/Cargo.toml", text),
            ["agent/cli/Cargo.toml:4: cli may not depend on blixard-store"]
        );
        assert_eq!(whats("agent/daemon/Cargo.toml", text), [""; 0]);
    }

    #[test]
    fn a_library_has_one_owner_whatever_it_is_called() {
        let text = "[target.'cfg(unix)'.dependencies]\nbus = { package = \"zbus\", version = \"1\" }\n";
        assert_eq!(whats("agent/net/Cargo.toml", text).len(), 1);
        assert_eq!(whats("agent/systemd/Cargo.toml", text), [""; 0]);
        assert_eq!(
            whats("agent/store/Cargo.toml", "[dev-dependencies]\niroh-base = \"1\"\nraftel = \"1\"\n").len(),
            1
        );
    }

    #[test]
    fn tests_may_look_sideways_but_nobody_imports_the_binary() {
        let dev = |name: &str| format!("[dev-dependencies]\n{name} = \"1\"\n");
        assert_eq!(whats("agent/core/Cargo.toml", &dev("blixard-consensus")), [""; 0]);
        assert_eq!(whats("agent/core/Cargo.toml", &dev("blixard")).len(), 1);
    }

    #[test]
    fn the_launcher_has_no_runtime() {
        let text = "[dependencies]\ntokio-util = \"1\"\n";
        assert_eq!(whats("agent/launcher/Cargo.toml", text).len(), 1);
        assert_eq!(whats("agent/daemon/Cargo.toml", text), [""; 0]);
    }

    #[test]
    fn a_clock_is_found_where_the_launcher_decides() {
        let text = "fn a() { crate::clock::boottime_ms(); }\n#[cfg(test)]\nfn b() { Instant::now(); }\n";
        let lines = |path: &str| {
            let file = RustFile::parse(path, text).expect("Rust");
            check_clockless(&file).iter().map(|finding| finding.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("agent/launcher/src/supervisor/end.rs"), [1, 1]);
        assert_eq!(lines("agent/launcher/src/stop_watch.rs"), [1, 1]);
        assert!(lines("agent/launcher/src/run.rs").is_empty());
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert_eq!(whats("agent/other/Cargo.toml", "").len(), 1);
    }

    #[test]
    fn clocks_and_unordered_maps_are_found_in_pure_code() {
        let text =
            "use std::time::Instant;\nfn a() { b::<HashMap<u8, u8>>(); }\n#[cfg(test)]\nuse tokio::x;\n";
        let file = RustFile::parse("agent/core/src/x.rs", text).expect("Rust");
        let lines: Vec<usize> = check_pure(&file).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2]);
        assert!(is_pure("agent/core/src/x.rs") && !is_pure("agent/net/src/x.rs"));
    }
}
