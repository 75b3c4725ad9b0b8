//! What a waiting command shows meanwhile, on stderr: a spinner on a terminal, elsewhere a line for each
//! change. That time goes by is no change.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::text::{clean, timeless};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Shows how far a wait has come. Everything vanishes with it but the lines.
#[derive(Debug)]
pub(crate) enum WaitProgress {
    /// `--json`: nothing but the document.
    Silent,
    /// No terminal: one line when something changed.
    Lines {
        /// The last line printed, without its times.
        last: String,
    },
    /// A terminal: the last state and the time that went by.
    Spinner(ProgressBar),
}

impl WaitProgress {
    /// The right kind for this process' stderr.
    pub(crate) fn new(json: bool) -> Self {
        if json {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: String::new() };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self::Spinner(bar)
    }

    /// Shows `text`, a line without its end.
    pub(crate) fn show(&mut self, text: &str) {
        let text = clean(text).replace('\n', " ");
        match self {
            Self::Silent => {}
            Self::Lines { last } => {
                let said = timeless(&text);
                if *last != said {
                    output::note(&format!("{text}\n"));
                    *last = said;
                }
            }
            Self::Spinner(bar) => bar.set_message(text),
        }
    }
}

impl Drop for WaitProgress {
    fn drop(&mut self) {
        if let Self::Spinner(bar) = self {
            bar.finish_and_clear();
        }
    }
}
