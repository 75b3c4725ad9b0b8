//! Texts on their way to a terminal: nothing that came from a guest may steer it.

use std::ffi::OsString;

/// Replaces control characters, line ends and tabs apart, by what a terminal shows harmlessly.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' => {}
            '\0'..='\x1f' => clean.extend(['^', char::from(c as u8 + b'@')]),
            '\x7f'..='\u{9f}' => clean.push('\u{fffd}'),
            _ => clean.push(c),
        }
    }
    clean
}

/// `text` with an ellipsis for each length of time: two texts that differ in nothing else say the same, one
/// later than the other.
pub(crate) fn timeless(text: &str) -> String {
    const UNITS: [&str; 5] = ["ms", "s", "min", "h", "d"];
    let number = |word: &str| {
        let digits = word.trim_start_matches('(');
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',')
    };
    let unit = |word: &str| UNITS.contains(&word.trim_end_matches([')', ',', ';', ':', '.']));
    let words: Vec<&str> = text.split(' ').collect();
    let (mut kept, mut at) = (Vec::new(), 0);
    while let Some(word) = words.get(at) {
        let is_time = number(word) && words.get(at + 1).is_some_and(|next| unit(next));
        if !is_time {
            kept.push(*word);
        } else if kept.last() != Some(&"…") {
            kept.push("…");
        }
        at += if is_time { 2 } else { 1 };
    }
    kept.join(" ")
}

/// [`clean`] for a stream of bytes that is cut anywhere: keeps back the beginning of an unfinished character.
#[derive(Debug, Default)]
pub(crate) struct ConsoleFilter {
    kept: Vec<u8>,
}

impl ConsoleFilter {
    /// The text of `chunk` that can be shown now.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.kept);
        bytes.extend_from_slice(chunk);
        let whole = match std::str::from_utf8(&bytes) {
            // No length: the end is an unfinished character, at most three bytes.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Broken in the middle: what is after it may be unfinished too, but one wrong sign is harmless.
            _ => bytes.len(),
        };
        self.kept = bytes.split_off(whole);
        clean(&String::from_utf8_lossy(&bytes))
    }
}

/// The command line to type again, with `--request-id` added, quoted for a shell.
pub(crate) fn retry_command(args: &[OsString], request_id: &str) -> String {
    let mut words: Vec<String> = args.iter().map(|arg| quote(&arg.to_string_lossy())).collect();
    let given = args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == "--request-id" || arg.starts_with("--request-id=")
    });
    if !given {
        // Behind a bare `--` it would not be a flag.
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        words.splice(end..end, ["--request-id".to_owned(), quote(request_id)]);
    }
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn control_characters_become_harmless() {
        assert_eq!(clean("a\tb\r\nc"), "a\tb\nc");
        assert_eq!(clean("\x1b]0;x\x07\x7f\u{9b}2J"), "^[]0;x^G\u{fffd}\u{fffd}2J");
        assert_eq!(clean("grün ✓"), "grün ✓");
    }

    #[test]
    fn what_differs_in_a_time_alone_says_the_same() {
        let silent =
            |time: &str| timeless(&format!("n3: unknown: n3 has not reported for {time}; it may run"));
        for time in ["1.0 s", "120 s", "2 min", "2 min 10 s", "3 h", "1,200 ms"] {
            assert_eq!(silent(time), silent("17 s"), "{time}");
        }
        assert_eq!(timeless("failed (next try in 3 s)"), timeless("failed (next try in 0 s)"));
        for (one, other) in [
            ("exited 1", "exited 2"),
            ("n1: 3 of 5", "n1: 4 of 5"),
            ("failed", "failed (next try in 3 s)"),
            ("running for 3 s", "starting for 3 s"),
        ] {
            assert_ne!(timeless(one), timeless(other));
        }
        assert_eq!(timeless("no time  in here"), "no time  in here");
    }

    #[test]
    fn a_character_cut_by_the_stream_is_put_together() {
        let mut filter = ConsoleFilter::default();
        let bytes = "a✓b".as_bytes();
        assert_eq!(filter.push(&bytes[..2]), "a");
        assert_eq!(filter.push(&bytes[2..3]), "");
        assert_eq!(filter.push(&bytes[3..]), "✓b");
        assert_eq!(filter.push(b"\xff\x1b"), "\u{fffd}^[");
    }

    #[test]
    fn the_retry_repeats_the_command_under_the_same_id() {
        let typed = args(&["blixard", "vm", "run", "web", "--cmdline", "it's on"]);
        assert_eq!(retry_command(&typed, "r1"), r"blixard vm run web --cmdline 'it'\''s on' --request-id r1");
        assert_eq!(retry_command(&args(&["blixard", "--", "web"]), "r1"), "blixard --request-id r1 -- web");
        for given in [&["b", "--request-id", "x"][..], &["b", "--request-id=x"]] {
            assert_eq!(retry_command(&args(given), "x"), given.join(" "));
        }
        assert_eq!(quote(""), "''");
    }
}
