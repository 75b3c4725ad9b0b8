//! Texts that are meant for something else than what they are put into: a path, a shell, systemd, a terminal.

/// Pieces that mean something somewhere. None of them is allowed in a name.
const PIECES: &[&str] = &[
    "../",
    "..",
    "/",
    "//",
    "./",
    "\\",
    "..\\",
    "/etc/passwd",
    "/proc/self/environ",
    "~",
    "~root",
    "file:///",
    "\\\\host",
    "%n",
    "%i",
    "%I",
    "%%",
    "%s",
    "%2e%2e%2f",
    "%00",
    "%",
    "${HOME}",
    "$HOME",
    "$()",
    "$(id)",
    "`id`",
    "!!",
    "!",
    "#",
    "&",
    "&&",
    "|",
    "||",
    ";",
    "; id",
    ">",
    "<",
    "<(id)",
    "*",
    "?",
    "[a]",
    "{a,b}",
    "(",
    ")",
    "'",
    "\"",
    "' or 1=1",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    "\u{1b}[31m",
    "\u{1b}]0;x\u{7}",
    "\u{8}",
    "\u{7f}",
    "\u{85}",
    "\u{9b}",
    "\u{a0}",
    "\u{ad}",
    "\u{200b}",
    "\u{200d}",
    "\u{202e}",
    "\u{2028}",
    "\u{feff}",
    "\u{fffd}",
    "\u{10ffff}",
    "é",
    "ä",
    "ß",
    "а",
    "ｗｅｂ",
    "\u{301}",
    "漢",
    "🦀",
    "١",
    "@",
    "@.",
    "a@b",
    ".service",
    ".socket",
    ".d",
    ".",
    "...",
    ".json",
    ".conf",
    ":",
    ",",
    "=",
    "+",
    "_",
    " ",
    "  ",
    "a b",
    ",readonly=off",
    ",file=/etc/shadow",
    "=on",
    "-append init=/bin/sh",
    " --help",
    "blixard-vm@a.service",
    "://",
    "{{7*7}}",
    "<script>",
    "null\0",
    "\\x2d",
    "\\x00",
    "\\n",
    "\u{0}\u{1}\u{2}",
    "A",
    "WEB",
    "Web",
];
/// Lengths at and around common limits, in bytes.
const LENGTHS: &[usize] = &[49, 63, 64, 65, 128, 254, 255, 256, 257, 1_023, 1_024, 4_095, 4_096, 65_535];

/// More than 500 texts, none of which is a node name or a VM name.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> =
        ["", "-", "--", "-a", "-web", "--help", "-rf", "web-", "a-", "1web", "0", "9-a", "007"]
            .map(String::from)
            .into();
    for piece in PIECES {
        names.extend([
            (*piece).to_owned(),
            format!("{piece}web"),
            format!("web{piece}"),
            format!("we{piece}b"),
        ]);
    }
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    for c in ('\0'..='\u{ff}').filter(|c| !allowed(c)) {
        names.push(format!("web{c}1"));
    }
    names.extend(LENGTHS.iter().map(|len| "a".repeat(*len)));
    names.sort();
    names.dedup();
    names
}

/// More than 200 texts, none of which is a plain absolute path.
pub fn paths() -> Vec<String> {
    let fixed = [
        "",
        "/",
        "//",
        ".",
        "..",
        "~",
        "~/k",
        "k",
        "./k",
        "../k",
        "srv/k",
        "-kernel",
        "--help",
        "file:///srv/k",
        "$HOME/k",
        "%h/k",
        "http://h/k",
        "\\srv\\k",
        "C:\\k",
        "/srv/",
        "/srv/.",
        "/srv/..",
        "/srv/../etc/shadow",
        "/srv/./k",
        "/srv//k",
        "//srv/k",
        "/..",
        "/.",
        "/srv/k/",
        "/a,b",
        "/srv/k,readonly=off",
        "/srv/k,file=/etc/shadow",
        ",",
        "/srv/,,k",
        " /srv/k",
        "/srv/../../../../../../etc/passwd",
        "/srv/k/../k",
        "/proc/../etc/shadow",
        "/./srv/k",
        "/../srv/k",
        "\u{2215}srv/k",
    ];
    let mut paths: Vec<String> = fixed.map(String::from).into();
    for c in ('\0'..='\u{9f}').filter(|c| c.is_control()) {
        paths.extend([format!("/srv/k{c}"), format!("/srv/{c}k"), format!("{c}/srv/k")]);
    }
    paths.extend([1_025, 4_096, 65_536].map(|len| format!("/{}", "a".repeat(len - 1))));
    paths.push("/a".repeat(600));
    paths
}

/// More than 60 texts, none of which is a kernel command line.
pub fn command_lines() -> Vec<String> {
    let mut lines: Vec<String> =
        ('\0'..='\u{9f}').filter(|c| c.is_control()).map(|c| format!("quiet{c}init=/x")).collect();
    lines.extend([1_801, 2_048, 65_536].map(|len| "x".repeat(len)));
    lines
}

#[test]
fn there_are_many_texts_and_no_path_twice() {
    use std::collections::BTreeSet;
    assert!(names().len() >= 500, "{}", names().len());
    assert!(
        paths().len() >= 200 && command_lines().len() >= 60,
        "{} {}",
        paths().len(),
        command_lines().len()
    );
    assert_eq!(paths().iter().collect::<BTreeSet<_>>().len(), paths().len());
}
