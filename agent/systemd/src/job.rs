//! Waits for systemd's jobs. The reply to `StartUnit` says only that a job was queued; a signal tells when
//! the job ends.

use std::time::Duration;

use tokio::sync::broadcast;
use zbus::OwnedObjectPath;

/// What those who wait for jobs are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobSignal {
    /// A job has ended.
    Done {
        /// The job's object path, as returned by the call that queued the job.
        path: OwnedObjectPath,
        /// `done`, `failed`, `canceled`, `timeout`, `dependency`, `skipped`.
        result: String,
    },
    /// The bus was lost: the ends of further jobs will not be seen.
    Lost,
}

/// How many ends of jobs may be queued for one listener. A listener that falls further behind lists units
/// instead.
pub(crate) const JOBS_QUEUED_MAX: usize = 1024;

/// Why the end of a job is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobUnknown {
    /// The deadline passed first.
    Timeout,
    /// The bus was lost, or signals were: the list of units tells more.
    Lost,
}

/// Collects the ends of jobs from its creation on, so it has to be made before the call that queues the job.
pub(crate) struct JobWatch(broadcast::Receiver<JobSignal>);

impl JobWatch {
    pub(crate) fn new(jobs: &broadcast::Sender<JobSignal>) -> Self {
        Self(jobs.subscribe())
    }

    /// Waits for the end of one job and returns its result.
    pub(crate) async fn result_of(
        mut self,
        job: &OwnedObjectPath,
        deadline: Duration,
    ) -> Result<String, JobUnknown> {
        let wait = async {
            loop {
                match self.0.recv().await {
                    Ok(JobSignal::Done { path, result }) if path == *job => return Ok(result),
                    Ok(JobSignal::Done { .. }) => {}
                    Ok(JobSignal::Lost) | Err(_) => return Err(JobUnknown::Lost),
                }
            }
        };
        tokio::time::timeout(deadline, wait).await.unwrap_or(Err(JobUnknown::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u32) -> OwnedObjectPath {
        OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{id}")).expect("path")
    }

    fn done(id: u32, result: &str) -> JobSignal {
        JobSignal::Done { path: job(id), result: result.into() }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_job_that_ended_before_the_reply_came_is_still_seen() {
        let (jobs, _) = broadcast::channel(4);
        let watch = JobWatch::new(&jobs);
        for id in 1..=3 {
            jobs.send(done(id, if id == 2 { "failed" } else { "done" })).expect("send");
        }
        assert_eq!(watch.result_of(&job(2), LONG).await, Ok("failed".into()));
    }

    #[tokio::test]
    async fn a_lost_bus_or_too_many_signals_leave_the_result_unknown() {
        let (jobs, _) = broadcast::channel(2);
        let flooded = JobWatch::new(&jobs);
        for id in 1..=9 {
            jobs.send(done(id, "done")).expect("send");
        }
        assert_eq!(flooded.result_of(&job(9), LONG).await, Err(JobUnknown::Lost));
        let cut = JobWatch::new(&jobs);
        jobs.send(JobSignal::Lost).expect("send");
        assert_eq!(cut.result_of(&job(1), LONG).await, Err(JobUnknown::Lost));
    }

    #[tokio::test]
    async fn a_job_that_does_not_end_times_out() {
        let (jobs, _keep) = broadcast::channel(2);
        let watch = JobWatch::new(&jobs);
        assert_eq!(watch.result_of(&job(1), Duration::ZERO).await, Err(JobUnknown::Timeout));
    }
}
