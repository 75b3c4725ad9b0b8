//! Writing to stdout and stderr without ever panicking: a reader that went away is no error.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::failure::Failure;

/// What became of something written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Printed {
    /// All of it was taken.
    All,
    /// Nobody reads any more (`| head`).
    ReaderGone,
}

/// Writes to `out` and flushes.
///
/// # Errors
/// An output that takes nothing, for example a full disk: whether the command was done is then not to be
/// seen.
pub(crate) fn write(out: &mut impl Write, bytes: &[u8]) -> Result<Printed, Failure> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::All),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        Err(error) => {
            let way_out = "the command itself may have been done: ask again";
            Err(Failure::unknown(format!("the output could not be written: {error}"), way_out))
        }
    }
}

/// Prints a text on stdout.
///
/// # Errors
/// As [`write()`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(&mut std::io::stdout().lock(), text.as_bytes()).map(|_| ())
}

/// Prints one JSON document on stdout.
///
/// # Errors
/// As [`write()`].
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(no_json)?;
    print(&(text + "\n"))
}

/// A JSON document on one line.
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn json_line(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(document).map(|text| text + "\n").map_err(no_json)
}

fn no_json(error: serde_json::Error) -> Failure {
    Failure::unknown(format!("the answer could not be written as JSON: {error}"), "")
}

/// Prints a text on stderr; there is nobody to tell when that fails.
pub(crate) fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        assert_eq!(write(&mut Vec::new(), b"x"), Ok(Printed::All));
        assert_eq!(write(&mut Broken(ErrorKind::BrokenPipe), b"x"), Ok(Printed::ReaderGone));
        assert!(write(&mut Broken(ErrorKind::StorageFull), b"x").is_err());
    }
}
