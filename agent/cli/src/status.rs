//! `blixard status`: once, as a check, or again and again.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use blixard_model::api::StatusView;
use console::Term;

use crate::args::{AskArgs, StatusArgs};
use crate::check::problems;
use crate::client::interrupt;
use crate::failure::Failure;
use crate::output::{self, Printed};
use crate::session::{ANSWER_TIMEOUT, Session};
use crate::show;
use crate::show::status::disarmed_words;

/// Pause between two looks unless another one is asked for.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(2);

/// Runs it.
pub(crate) async fn run(args: StatusArgs, json: bool) -> Result<(), Failure> {
    let StatusArgs { watch: watches, interval, check, ask } = args;
    if watches {
        return watch(&ask, json, interval.unwrap_or(INTERVAL_DEFAULT)).await;
    }
    let session = Session::open(&ask, json, ANSWER_TIMEOUT);
    let view = look(&session).await?;
    if check {
        return judge(&view);
    }
    session.print(&view, &show::status::screen(&view))
}

/// Ends with what needs a look. That somebody disarmed the cluster is none of it, and is said all the same.
fn judge(view: &StatusView) -> Result<(), Failure> {
    let (mut problems, disarmed) = (problems(view), view.disarmed.as_ref().map(disarmed_words));
    if problems.is_empty() {
        disarmed.iter().for_each(|words| output::note(&format!("note: {words}\n")));
        return Ok(());
    }
    problems.extend(disarmed);
    Err(Failure::refused(problems.join("; "), ""))
}

async fn look(session: &Session) -> Result<StatusView, Failure> {
    session.get("/v1/status").await
}

async fn watch(ask: &AskArgs, json: bool, interval: Duration) -> Result<(), Failure> {
    let looks = async {
        loop {
            // A session for each look: the deadline is one look's.
            let looked = look(&Session::open(ask, json, ANSWER_TIMEOUT)).await;
            if draw(looked, json)? == Printed::ReaderGone {
                return Ok(());
            }
            tokio::time::sleep(interval).await;
        }
    };
    tokio::select! {
        biased;
        // First, so that it is not taken for a look that failed.
        () = interrupt() => Ok(()),
        ended = looks => ended,
    }
}

/// Shows a look, or why there was none: the agent may be starting again.
fn draw(looked: Result<StatusView, Failure>, json: bool) -> Result<Printed, Failure> {
    let mut stdout = std::io::stdout().lock();
    if json {
        return match looked {
            Ok(view) => output::write(&mut stdout, output::json_line(&view)?.as_bytes()),
            Err(failure) => {
                output::note(&failure.render(true));
                Ok(Printed::All)
            }
        };
    }
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let text = looked.map_or_else(|failure| failure.human(), |view| show::status::screen(&view));
    if !stdout.is_terminal() {
        return output::write(&mut stdout, format!("--- {now}\n{text}").as_bytes());
    }
    let terminal = Term::buffered_stdout();
    let (rows, columns) = terminal.size();
    let screen = fit(&format!("blixard status  {now}  Ctrl-C ends it\n\n{text}"), rows, columns);
    // In one go, so that nothing flickers. What is on the terminal's way out is no outcome of the command.
    let shown = terminal.clear_screen().and_then(|()| terminal.write_str(&screen));
    match shown.and_then(|()| terminal.flush()) {
        Ok(()) => Ok(Printed::All),
        Err(_) => Ok(Printed::ReaderGone),
    }
}

/// As much of the text as the terminal has room for: what scrolls out at the top could not be seen again.
fn fit(text: &str, rows: u16, columns: u16) -> String {
    let columns = usize::from(columns).max(1);
    // The cursor needs a row of its own, and so does the note.
    let room = usize::from(rows).saturating_sub(2);
    let height = |line: &str| line.chars().count().div_ceil(columns).max(1);
    let total: usize = text.lines().map(height).sum();
    if total <= room + 1 {
        return text.to_owned();
    }
    let (mut used, mut kept) = (0, String::new());
    for line in text.lines() {
        used += height(line);
        if used > room {
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept.push_str("... the window is too small for the rest\n");
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_shown_whole_and_the_rest_is_cut_at_the_end() {
        let text = "a\nb\nc\n";
        assert_eq!(fit(text, 4, 80), text);
        assert_eq!(fit(text, 24, 80), text);
        assert_eq!(fit(text, 3, 80), "a\n... the window is too small for the rest\n");
        let wraps = format!("{}\nb\nc\n", "x".repeat(81));
        assert_eq!(fit(&wraps, 5, 80), wraps);
        assert!(fit(&wraps, 4, 80).starts_with("xx"));
        assert!(!fit(&wraps, 4, 80).contains("\nb"));
        assert_eq!(fit(text, 0, 0), "... the window is too small for the rest\n");
    }
}
