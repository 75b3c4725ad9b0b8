//! Ends the process when an execution does not return, because a test cannot be ended in any other way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kept::keep;

/// Longest time that one execution may take.
pub const HANG_MAX: Duration = Duration::from_secs(2);
/// An execution that takes this long is taken for one that never ends. One that takes longer than
/// [`HANG_MAX`], but less than this, fails when it ends.
const GIVE_UP: Duration = Duration::from_secs(4 * HANG_MAX.as_secs());
/// Pause between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Watches the executions of one target until it is dropped.
pub(crate) struct Watch {
    state: Arc<Mutex<WatchedState>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct WatchedState {
    since: Option<Instant>,
    input: Vec<u8>,
    over: bool,
}

impl Watch {
    pub(crate) fn new(target: &'static str) -> Self {
        let state = Arc::new(Mutex::new(WatchedState::default()));
        let looked_at = Arc::clone(&state);
        let thread = std::thread::spawn(move || look(target, &looked_at));
        Self { state, thread: Some(thread) }
    }

    pub(crate) fn begin(&self, input: &[u8]) {
        let mut state = lock(&self.state);
        state.since = Some(Instant::now());
        state.input.clear();
        state.input.extend_from_slice(input);
    }

    pub(crate) fn end(&self) {
        lock(&self.state).since = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.state).over = true;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does not panic; if it did, the end of the test itself would say more.
            let _ended = thread.join();
        }
    }
}

fn lock(state: &Mutex<WatchedState>) -> MutexGuard<'_, WatchedState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(target: &str, state: &Mutex<WatchedState>) {
    loop {
        std::thread::park_timeout(LOOK_PERIOD);
        let state = lock(state);
        if state.over {
            return;
        }
        if state.since.is_some_and(|since| since.elapsed() > GIVE_UP) {
            let file = keep(target, &state.input);
            eprintln!("fuzz {target}: no end after {GIVE_UP:?}: input in {}", file.display());
            std::process::exit(101);
        }
    }
}
