//! The form of a finding: a shell script that can be run and says what it is about (`findings/README.md`).

use super::Finding;

/// The first line of a finding.
const SHEBANG: &str = "#!/usr/bin/env bash";
/// Comes before the name and the version of a package, in the first lines.
const PACKAGE: &str = "# package: ";

/// Whether the file is a finding.
pub(crate) fn applies(path: &str) -> bool {
    path.starts_with("findings/") && path != "findings/README.md"
}

/// Finds what the script lacks.
pub(crate) fn check(path: &str, text: &str, is_executable: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wanted = |holds: bool, what: &str| {
        if !holds {
            findings.push(Finding::new(path, 1, what));
        }
    };
    wanted(path.ends_with(".sh"), "a finding is a script NAME.sh");
    wanted(is_executable, "not executable: chmod +x");
    wanted(text.lines().next() == Some(SHEBANG), "the first line has to be #!/usr/bin/env bash");
    wanted(text.lines().any(|line| line == "set -eu"), "no line `set -eu`");
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let named = head.filter_map(|line| line.strip_prefix(PACKAGE)).any(names_a_version);
    wanted(named, "its first lines name no package with a version: # package: NAME VERSION");
    findings
}

fn names_a_version(package: &str) -> bool {
    let (name, version) = package.split_once(' ').unwrap_or_default();
    !name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn what_a_finding_lacks_is_found() {
    let good = "#!/usr/bin/env bash\n# package: redb 4.6.0\n#\n# Why.\nset -eu\n";
    assert!(applies("findings/a.sh") && !applies("findings/README.md") && !applies("tests/findings.rs"));
    assert_eq!(check("findings/a.sh", good, true), []);
    assert_eq!(check("findings/a.py", good, false).len(), 2);
    for broken in ["4.6.0", "set -eu", "package", "env bash"] {
        assert_eq!(check("findings/a.sh", &good.replace(broken, ""), true).len(), 1, "{broken}");
    }
}
