//! Words that mark something unfinished. The list is made of halves, so that it does not find itself.

use super::Finding;

/// How upper and lower case are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// As it is written.
    Exact,
    /// In any case.
    Any,
}

const WORDS: &[(&str, Case)] = &[
    (concat!("to", "do!"), Case::Exact),
    (concat!("TO", "DO"), Case::Exact),
    (concat!("unimple", "mented!"), Case::Exact),
    (concat!("FIX", "ME"), Case::Any),
    (concat!("for", " now"), Case::Any),
    (concat!("place", "holder"), Case::Any),
    (concat!("st", "ub"), Case::Any),
    (concat!("db", "g!"), Case::Exact),
    (concat!("dead", "_code"), Case::Exact),
    (concat!("#[ign", "ore"), Case::Exact),
];

/// Finds every forbidden word in a text.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        for (word, case) in WORDS {
            if holds(line, word, *case) {
                findings.push(Finding::new(path, n + 1, format!("the word {word:?}")));
            }
        }
    }
    findings
}

/// Whether the word stands alone in the line, and is not a part of another word, a name or a path.
fn holds(line: &str, word: &str, case: Case) -> bool {
    let (line, word) = match case {
        Case::Exact => (line.to_owned(), word.to_owned()),
        Case::Any => (line.to_lowercase(), word.to_lowercase()),
    };
    let joins = |c: char| c.is_alphanumeric() || "_-/".contains(c);
    line.match_indices(&word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joined_before = word.starts_with(char::is_alphabetic) && before.is_some_and(joins);
        let joined_after = word.ends_with(char::is_alphabetic) && after.is_some_and(joins);
        !joined_before && !joined_after
    })
}

#[test]
fn each_word_is_found_with_its_line() {
    for (word, _) in WORDS {
        assert_eq!(check("a.rs", &format!("fn a() {{\n    {word} }}\n")).len(), 1, "{word}");
        assert_eq!(check("a.rs", &format!("x\n{word}\n"))[0].line, 2, "{word}");
    }
}

#[test]
fn case_matters_for_words_that_are_ordinary_in_another_case() {
    let text = |word: &str| check("a.md", word).len();
    assert_eq!(text(&concat!("For", " Now").to_lowercase()), 1);
    assert_eq!(text(concat!("Place", "holder")), 1);
    assert_eq!(text("a todo list"), 0);
}

#[test]
fn a_part_of_another_word_is_no_finding() {
    for text in ["stubborn", "/run/systemd/resolve/stub-resolv.conf", "known for nowhere", "stub_resolver"] {
        assert_eq!(check("a.rs", text), [], "{text}");
    }
}
