//! What a manifest says for people: what the crate is, where it comes from, and its licence.

use super::Finding;

/// Fields that every crate inherits from the workspace.
const INHERITED: [&str; 3] = ["license", "repository", "rust-version"];

/// Finds what the manifest of a crate lacks.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let manifest: toml::Table = match toml::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(path, 1, error.to_string())],
    };
    let field = |name: &str| manifest.get("package").and_then(|package| package.get(name));
    let mut findings = Vec::new();
    if field("description").and_then(toml::Value::as_str).is_none_or(str::is_empty) {
        findings.push(Finding::new(path, 1, "no description"));
    }
    let inherits = |name: &str| field(name).and_then(|value| value.get("workspace")?.as_bool()) == Some(true);
    let missing = INHERITED.into_iter().filter(|name| !inherits(name));
    findings.extend(missing.map(|name| Finding::new(path, 1, format!("no {name}.workspace = true"))));
    findings
}

#[test]
fn what_a_manifest_lacks_is_found() {
    let inherited = "license.workspace = true\nrepository.workspace = true\nrust-version.workspace = true\n";
    let good = format!("[package]\ndescription = \"x\"\n{inherited}");
    assert_eq!(check("a/Cargo.toml", &good), []);
    assert_eq!(check("a/Cargo.toml", &good.replace("\"x\"", "\"\"")).len(), 1);
    assert_eq!(check("a/Cargo.toml", &good.replace("repository.workspace = true\n", "")).len(), 1);
    assert_eq!(check("a/Cargo.toml", "[package]\n").len(), 4);
}
