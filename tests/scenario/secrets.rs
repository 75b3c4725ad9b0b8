//! A node's secret key is in its key file and nowhere else.

use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;

use super::cluster::{Cluster, Node};

const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE32_LOWER: &str = "abcdefghijklmnopqrstuvwxyz234567";
const Z_BASE32: &str = "ybndrfg8ejkmcpqxot1uwisza345h769";
const HEX: &str = "0123456789abcdef";
const HEX_UPPER: &str = "0123456789ABCDEF";

/// The bytes in digits of this alphabet, high bits first. An incomplete last digit is left out.
fn digits(bytes: &[u8], alphabet: &str) -> String {
    let width = alphabet.len().ilog2();
    let (mut rest, mut bits, mut text) = (0u32, 0, String::new());
    for byte in bytes {
        rest = rest << 8 | u32::from(*byte);
        bits += 8;
        while bits >= width {
            bits -= width;
            let digit = usize::try_from(rest >> bits).expect("small") % alphabet.len();
            text.push(char::from(alphabet.as_bytes()[digit]));
        }
        rest &= (1 << bits) - 1;
    }
    text
}

/// A secret key in every form in which careless code might print it.
fn forms(key_file: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let text = std::fs::read_to_string(key_file).expect("the key file");
    let text = text.trim();
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
    assert_eq!(bytes.len(), 32);
    let list = |texts: Vec<String>| texts.join(", ").into_bytes();
    let alphabets = [
        ("hex", HEX),
        ("HEX", HEX_UPPER),
        ("base64", BASE64),
        ("base64url", BASE64_URL),
        ("BASE32", BASE32),
        ("base32", BASE32_LOWER),
        ("z-base32", Z_BASE32),
    ];
    let mut forms = alphabets.map(|(name, alphabet)| (name, digits(&bytes, alphabet).into_bytes())).to_vec();
    forms.push(("a list of numbers", list(bytes.iter().map(u8::to_string).collect())));
    forms.push((
        "a list of hexadecimal numbers",
        list(bytes.iter().map(|byte| format!("{byte:x}")).collect()),
    ));
    forms.push(("raw", bytes));
    forms
}

/// Searches for several keys at once, because the log at the level TRACE is long.
struct Search {
    forms: Vec<(&'static str, Vec<u8>)>,
    automaton: AhoCorasick,
}

impl Search {
    fn of(key_files: &[PathBuf]) -> Self {
        let forms: Vec<_> = key_files.iter().flat_map(|file| forms(file)).collect();
        let automaton = AhoCorasick::new(forms.iter().map(|(_, form)| form)).expect("few");
        Self { forms, automaton }
    }

    /// The name of the first form that this text contains.
    fn found(&self, text: &[u8]) -> Option<&'static str> {
        self.automaton.find(text).map(|found| self.forms[found.pattern().as_usize()].0)
    }
}

/// What can be seen of a running node from outside, each with the place where it was seen.
fn visible(node: &Node) -> Vec<(String, Vec<u8>)> {
    let log = std::fs::read(node.dir.join("log")).expect("a log");
    let mut seen = vec![(format!("{}'s log", node.name), log)];
    let pid = node.pid();
    for file in ["cmdline", "environ", "comm", "status"] {
        let path = format!("/proc/{pid}/{file}");
        seen.push((path.clone(), std::fs::read(&path).expect("readable")));
    }
    for line in ["status --json", "node list --json", "vm list --json", "vm list", "status"] {
        let run = node.blixard(line);
        assert_eq!(run.code, 0, "{run:?}");
        seen.push((format!("`blixard {line}`"), format!("{}{}", run.stdout, run.stderr).into_bytes()));
    }
    seen
}

#[test]
fn a_key_is_never_logged_answered_or_handed_to_a_process() {
    let mut c = Cluster::new(3);
    let everything = [("BLIXARD_LOG", "trace"), ("RUST_LOG", "trace")];
    c.nodes.iter_mut().for_each(|node| node.start_with(&everything));
    c.await_formed(3);
    assert_eq!(c.nodes[1].blixard("vm create a --kernel /k").code, 0);
    // One start was from an empty store, this one is from a log.
    c.nodes[0].stop();
    c.nodes[0].start_with(&everything);
    c.await_formed(3);
    let keys: Vec<PathBuf> = c.nodes.iter().map(|node| node.dir.join("node.key")).collect();
    let search = Search::of(&keys);
    for (place, text) in c.nodes.iter().flat_map(visible) {
        assert_eq!(search.found(&text), None, "{place}");
        assert!(
            !place.ends_with("log") || text.windows(5).any(|word| word == b"TRACE"),
            "{place} is no trace"
        );
    }
    // The search finds what it looks for.
    let own = std::fs::read(&keys[0]).expect("the key file");
    assert_eq!(search.found(&own), Some("hex"));
    assert_eq!(Search::of(&keys[1..]).found(&own), None);
}

#[test]
fn the_encodings_that_are_searched_for_are_correct() {
    assert_eq!(digits(b"foobar", BASE64), "Zm9vYmFy");
    assert_eq!(digits(b"fooba", BASE32), "MZXW6YTB");
    assert_eq!(digits(&[0xd4, 0x7a, 0x04], Z_BASE32), "4t7y");
    assert_eq!(digits(&[0x0a, 0xff], HEX), "0aff");
}
