//! Numbers, times and errors as people read them, for texts that nodes hand on to each other and to people.

use std::error::Error;
use std::time::Duration;

/// A number with its thousands apart: `1,200`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A length of time with two units at most, whole seconds: `45 s`, `2 min 10 s`, `3 h 5 min`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let two = |(large, unit): (u64, &str), (small, small_unit): (u64, &str)| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => two((seconds / 60, "min"), (seconds % 60, "s")),
        7_200..172_800 => two((seconds / 3_600, "h"), (seconds % 3_600 / 60, "min")),
        _ => two((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
    }
}

/// A length of time as people say it: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// An error and its causes on one line, each once: `launch order: /x/order: No such file or directory`.
///
/// Our own errors leave their source out of their text. Some libraries' errors repeat it there: a cause that
/// the text already ends with is left out (`findings/zbus-error-repeats-source.sh`).
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("the order")]
        Apart(#[source] io::Error),
        #[error(transparent)]
        Repeated(#[from] OfLibrary),
        #[error("outer")]
        Outer(#[source] Box<Failed>),
    }

    /// Its text ends with its source, as that of some libraries' errors does.
    #[derive(Debug)]
    struct OfLibrary(io::Error);

    impl fmt::Display for OfLibrary {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the order: {}", self.0)
        }
    }

    impl Error for OfLibrary {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn each_cause_stands_once() {
        let full = || io::Error::other("disk full");
        assert_eq!(with_causes(&full()), "disk full");
        assert_eq!(with_causes(&Failed::Apart(full())), "the order: disk full");
        assert_eq!(with_causes(&OfLibrary(full())), "the order: disk full");
        let outer = Failed::Outer(Box::new(Failed::Repeated(OfLibrary(full()))));
        assert_eq!(with_causes(&outer), "outer: the order: disk full");
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_200, "1,200"), (123_456, "123,456"), (1_000_000, "1,000,000")]
        {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn a_time_has_two_units_at_most() {
        let cases = [
            (999, "0 s"),
            (45_000, "45 s"),
            (130_000, "2 min 10 s"),
            (240_000, "4 min"),
            (11_100_000, "3 h 5 min"),
            (180_000_000, "2 d 2 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn durations_are_short() {
        for (ms, text) in
            [(400, "0.4 s"), (12_300, "12 s"), (200_000, "3 min"), (18_000_000, "5 h"), (172_800_000, "2 d")]
        {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }
}
