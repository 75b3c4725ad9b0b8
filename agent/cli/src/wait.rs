//! When waiting for a VM is over. Pure: a decision from what was seen before and what is seen now.
//!
//! An agent starts a failed VM again after a pause, so `failed` comes and goes. Only a failure that belongs
//! to this request ends the wait: one of a VM that had not failed before, one after another state was seen,
//! one with another reason, or one that is still reported long after the request.

use std::time::Duration;

use blixard_model::api::VmView;
use blixard_model::report::ObservedState;
use blixard_model::vm::Desired;

use crate::text::timeless;

/// A failure that is reported in the same words this long after the request is the request's own: by then its
/// node has taken the request up.
const SETTLE: Duration = Duration::from_secs(10);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The hypervisor says running.
    Running,
    /// No process, and none wanted.
    Stopped,
    /// The name is free again.
    Gone,
}

/// What to do after a look at the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WaitVerdict {
    /// Look again.
    Continue,
    /// It is so.
    Reached,
    /// The VM failed because of this request; the reason.
    Failed(String),
    /// Somebody else wants something else by now; what.
    Overtaken(String),
}

/// One wait for one VM.
#[derive(Debug)]
pub(crate) struct Wait {
    goal: Goal,
    /// The failure that was there before the request, if one was.
    old_failure: Option<OldFailure>,
}

#[derive(Debug)]
struct OldFailure {
    reason: Option<String>,
}

impl Wait {
    /// A wait for `goal` of a VM that was seen as `before` (`None`: there was none, or it does not matter).
    pub(crate) fn new(goal: Goal, before: Option<&VmView>) -> Self {
        let failed = before.filter(|view| view.state == ObservedState::Failed);
        Self { goal, old_failure: failed.map(|view| OldFailure { reason: view.reason.clone() }) }
    }

    /// Judges one look at the VM (`None`: there is no such VM), `since` the request was sent.
    pub(crate) fn judge(&mut self, seen: Option<&VmView>, since: Duration) -> WaitVerdict {
        let Some(view) = seen else { return self.judge_absence() };
        if self.goal == Goal::Running && is_moving(view.state) {
            self.old_failure = None;
        }
        match self.goal {
            // Another VM of the same name: the one this was about is gone.
            Goal::Gone if view.desired != Desired::Absent => WaitVerdict::Reached,
            Goal::Gone => WaitVerdict::Continue,
            Goal::Running => self.judge_running(view, since),
            Goal::Stopped => self.judge_stopped(view, since),
        }
    }

    fn judge_absence(&self) -> WaitVerdict {
        match self.goal {
            Goal::Gone => WaitVerdict::Reached,
            Goal::Running | Goal::Stopped => WaitVerdict::Overtaken("it was deleted meanwhile".to_owned()),
        }
    }

    fn judge_running(&self, view: &VmView, since: Duration) -> WaitVerdict {
        match view.desired {
            Desired::Running => {}
            Desired::Stopped => return WaitVerdict::Overtaken(stopped_meanwhile(view)),
            Desired::Absent => return WaitVerdict::Overtaken("it is being deleted".to_owned()),
        }
        match view.state {
            ObservedState::Running if is_fresh(view, since) => WaitVerdict::Reached,
            ObservedState::Failed if self.is_new_failure(view, since) => failed(view),
            _ => WaitVerdict::Continue,
        }
    }

    fn judge_stopped(&self, view: &VmView, since: Duration) -> WaitVerdict {
        match view.desired {
            Desired::Stopped => {}
            Desired::Running => return WaitVerdict::Overtaken("it was started again meanwhile".to_owned()),
            Desired::Absent => return WaitVerdict::Overtaken("it is being deleted".to_owned()),
        }
        match view.state {
            // A node that knows of the stop says so, also of a VM that had failed before. One that says
            // failed does not know of it yet, and may start the VM again.
            ObservedState::Stopped if is_fresh(view, since) => WaitVerdict::Reached,
            ObservedState::Failed if self.is_new_failure(view, since) => failed(view),
            _ => WaitVerdict::Continue,
        }
    }

    /// Whether `view`, which says failed, speaks of this request.
    fn is_new_failure(&self, view: &VmView, since: Duration) -> bool {
        if !is_fresh(view, since) {
            return false;
        }
        let Some(old) = &self.old_failure else { return true };
        let age = Duration::from_millis(view.observed_age_ms.unwrap_or(0));
        // The time until the next try goes by in the same failure.
        let said = |reason: &Option<String>| reason.as_deref().map(timeless);
        said(&old.reason) != said(&view.reason) || since.saturating_sub(age) >= SETTLE
    }
}

/// A VM that is not restarted may end before it was seen to run.
fn stopped_meanwhile(view: &VmView) -> String {
    let by_itself = view.stopped.as_ref().map(|stopped| stopped.words(&view.name));
    by_itself.unwrap_or_else(|| "it was told to stop meanwhile".to_owned())
}

/// The unit was seen to do something else than to have failed.
fn is_moving(state: ObservedState) -> bool {
    matches!(
        state,
        ObservedState::Starting
            | ObservedState::Running
            | ObservedState::Paused
            | ObservedState::Stopping
            | ObservedState::Stopped
    )
}

/// The observation was made after the request was sent, as far as ages can say.
fn is_fresh(view: &VmView, since: Duration) -> bool {
    view.observed_age_ms.is_none_or(|age_ms| Duration::from_millis(age_ms) <= since)
}

fn failed(view: &VmView) -> WaitVerdict {
    WaitVerdict::Failed(view.reason.clone().unwrap_or_else(|| "its node gave no reason".to_owned()))
}

#[cfg(test)]
mod tests {
    use ObservedState::{Deleting, Failed, Pending, Running, Starting, Stopped, Stopping, Unknown};
    use blixard_model::{EndCause, NotedStop, StopCause, VmStop};

    use super::*;
    use crate::sample;

    fn view(desired: Desired, state: ObservedState) -> VmView {
        let main_pid = (state == Running).then_some(4312);
        VmView { desired, state, main_pid, observed_age_ms: Some(0), ..sample::vm("web") }
    }

    fn because(reason: &str, view: VmView) -> VmView {
        VmView { reason: Some(reason.to_owned()), ..view }
    }

    /// Feeds one look after the other, a second apart, each made just then; the verdict and how many looks it
    /// took.
    fn verdict(goal: Goal, before: Option<&VmView>, looks: &[Option<VmView>]) -> (WaitVerdict, usize) {
        let mut wait = Wait::new(goal, before);
        for (n, seen) in looks.iter().enumerate() {
            let since = Duration::from_secs(1 + n as u64);
            match wait.judge(seen.as_ref(), since) {
                WaitVerdict::Continue => {}
                end => return (end, n + 1),
            }
        }
        (WaitVerdict::Continue, looks.len())
    }

    fn looks(desired: Desired, states: &[ObservedState]) -> Vec<Option<VmView>> {
        states.iter().map(|state| Some(view(desired, *state))).collect()
    }

    #[test]
    fn a_new_vm_runs_in_the_end() {
        let seen = looks(Desired::Running, &[Pending, Unknown, Starting, Running]);
        assert_eq!(verdict(Goal::Running, None, &seen), (WaitVerdict::Reached, 4));
    }

    #[test]
    fn a_new_vm_that_fails_ends_the_wait_at_once_with_its_reason() {
        let fails = because("exited 1", view(Desired::Running, Failed));
        let seen =
            [Some(view(Desired::Running, Starting)), Some(fails), Some(view(Desired::Running, Running))];
        assert_eq!(verdict(Goal::Running, None, &seen), (WaitVerdict::Failed("exited 1".into()), 2));
    }

    #[test]
    fn the_failure_of_before_is_not_the_failure_of_this_start() {
        let old = because("exited 1", view(Desired::Stopped, Failed));
        let still = VmView { desired: Desired::Running, ..old.clone() };
        let runs = [Some(still.clone()), Some(view(Desired::Running, Running))];
        assert_eq!(verdict(Goal::Running, Some(&old), &runs), (WaitVerdict::Reached, 2));

        let again = [Some(still.clone()), Some(view(Desired::Running, Starting)), Some(still.clone())];
        assert_eq!(verdict(Goal::Running, Some(&old), &again), (WaitVerdict::Failed("exited 1".into()), 3));

        let (soon, sooner) = ("exited 1 (next try in 3 s)", "exited 1 (next try in 2 s)");
        let pauses = [soon, sooner].map(|why| Some(because(why, still.clone())));
        let before = because(soon, old.clone());
        assert_eq!(verdict(Goal::Running, Some(&before), &pauses), (WaitVerdict::Continue, 2));

        let other = [Some(still.clone()), Some(because("exited 2", still.clone()))];
        assert_eq!(verdict(Goal::Running, Some(&old), &other), (WaitVerdict::Failed("exited 2".into()), 2));

        let forever = vec![Some(still); 30];
        assert_eq!(
            verdict(Goal::Running, Some(&old), &forever),
            (WaitVerdict::Failed("exited 1".into()), 10)
        );
    }

    #[test]
    fn an_observation_older_than_the_request_decides_nothing() {
        let aged = |state, age_ms| VmView { observed_age_ms: Some(age_ms), ..view(Desired::Running, state) };
        let seen = [Some(aged(Running, 1_001)), Some(aged(Failed, 2_500)), Some(aged(Running, 2_900))];
        assert_eq!(verdict(Goal::Running, None, &seen), (WaitVerdict::Reached, 3));
    }

    #[test]
    fn a_vm_that_ended_and_is_not_restarted_ends_the_wait_with_how_it_ended() {
        let stop = VmStop { cause: StopCause::Ended(EndCause::GuestShutDown), at_unix_ms: 0 };
        let stopped = Some(NotedStop { node: "n1".parse().expect("name"), stop });
        let seen = [Some(VmView { stopped, ..view(Desired::Stopped, Stopped) })];
        let (end, _) = verdict(Goal::Running, None, &seen);
        let why = "the guest shut itself down on n1; `blixard vm start web` starts it again";
        assert_eq!(end, WaitVerdict::Overtaken(why.to_owned()));
    }

    #[test]
    fn a_stop_ends_when_nothing_runs() {
        let seen = looks(Desired::Stopped, &[Running, Stopping, Stopped]);
        assert_eq!(
            verdict(Goal::Stopped, Some(&view(Desired::Running, Running)), &seen),
            (WaitVerdict::Reached, 3)
        );
        let failed = looks(Desired::Stopped, &[Failed]);
        let (end, _) = verdict(Goal::Stopped, Some(&view(Desired::Running, Running)), &failed);
        assert!(matches!(end, WaitVerdict::Failed(_)));
    }

    /// Its node may be cut off and start it again once its pause is over.
    #[test]
    fn a_vm_that_had_failed_is_stopped_once_its_node_says_stopped() {
        let before = because("exited 1", view(Desired::Running, Failed));
        let still = VmView { desired: Desired::Stopped, ..before.clone() };
        let old = VmView { observed_age_ms: Some(4_000), ..still.clone() };
        let again = looks(Desired::Stopped, &[Unknown, Running]);
        let seen = [vec![Some(old), Some(still.clone())], again].concat();
        assert_eq!(verdict(Goal::Stopped, Some(&before), &seen), (WaitVerdict::Continue, 4));

        let seen = [Some(still), Some(view(Desired::Stopped, Stopped))];
        assert_eq!(verdict(Goal::Stopped, Some(&before), &seen), (WaitVerdict::Reached, 2));
    }

    #[test]
    fn a_delete_ends_when_the_name_is_free() {
        let mut seen = looks(Desired::Absent, &[Stopping, Deleting, Unknown, Failed]);
        assert_eq!(verdict(Goal::Gone, None, &seen), (WaitVerdict::Continue, 4));
        seen.push(None);
        assert_eq!(verdict(Goal::Gone, None, &seen), (WaitVerdict::Reached, 5));
        assert_eq!(
            verdict(Goal::Gone, None, &looks(Desired::Running, &[Pending])),
            (WaitVerdict::Reached, 1)
        );
    }

    #[test]
    fn another_wish_meanwhile_ends_the_wait() {
        let overtaken = [
            (Goal::Running, vec![None]),
            (Goal::Running, looks(Desired::Stopped, &[Stopping])),
            (Goal::Running, looks(Desired::Absent, &[Deleting])),
            (Goal::Stopped, vec![None]),
            (Goal::Stopped, looks(Desired::Running, &[Starting])),
            (Goal::Stopped, looks(Desired::Absent, &[Deleting])),
        ];
        for (goal, seen) in overtaken {
            let (end, _) = verdict(goal, None, &seen);
            assert!(matches!(end, WaitVerdict::Overtaken(_)), "{goal:?} {seen:?}: {end:?}");
        }
    }
}
