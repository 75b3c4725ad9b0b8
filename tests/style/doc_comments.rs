//! A doc comment of one word, such as `Which`, says nothing that the name beside it does not say.

use super::Finding;

/// Finds every doc comment that is one word.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let docs: Vec<Option<&str>> = text.lines().map(doc).collect();
    let is_alone = |n: usize| {
        let other = |n: Option<usize>| n.and_then(|n| docs.get(n)).copied().flatten();
        other(n.checked_sub(1)).is_none() && other(n.checked_add(1)).is_none()
    };
    // A link to the place that says more does not count as a word.
    let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '`');
    let found = docs.iter().enumerate().filter(|(n, doc)| doc.is_some_and(is_word) && is_alone(*n));
    found.map(|(n, _)| Finding::new(path, n + 1, "a doc comment of one word: say what it is")).collect()
}

/// The text of a line that is a doc comment.
fn doc(line: &str) -> Option<&str> {
    line.trim().strip_prefix("///").or_else(|| line.trim().strip_prefix("//!")).map(str::trim)
}

#[test]
fn one_word_is_found_and_a_sentence_is_not() {
    let text = "/// Which.\na: u8,\n/// The two of\n/// them.\nb: u8,\n/// [`A`].\nc: u8,\n";
    assert_eq!(check("a.rs", text), [Finding::new("a.rs", 1, "a doc comment of one word: say what it is")]);
}
