//! Clearing away what pods that are gone have left, beside the supervisor's loop: a mount or a cgroup that hangs holds no
//! other pod up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::agent::context::Context;
use crate::agent::{cleanup, volumes};
use crate::host::clock::Instant;

/// How often what is left of pods that are gone is looked for; where something was left for sure, with each list.
const EVERY: Duration = Duration::from_secs(600);
/// How long the first pods wait for what an earlier agent's have left: its processes may have their ports. What hangs for
/// longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub struct Clearing {
    state: State,
    steps: JoinSet<Step>,
    started: Option<Instant>,
    /// The first time is over, or has taken too long.
    first_is_over: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Looking,
    Removing(BTreeSet<String>),
}

/// What has come of it.
#[derive(Debug)]
pub enum Step {
    /// UIDs of the pods of this root directory that have a directory there.
    Found(BTreeSet<String>),
    /// Of these everything was removed that can be; of the second ones something is left.
    Removed(BTreeSet<String>, Vec<String>),
    /// The first time takes too long.
    Late,
    /// It has failed as a whole.
    Failed,
}

impl Clearing {
    /// What comes next of it; None when nothing is under way.
    pub async fn next(&mut self) -> Option<Step> {
        loop {
            let step = self.steps.join_next().await?.unwrap_or(Step::Failed);
            match step {
                Step::Found(_) => {}
                Step::Late if self.first_is_over => continue,
                Step::Late => self.first_is_over = true,
                Step::Removed(..) | Step::Failed => self.end(),
            }
            return Some(step);
        }
    }

    /// Looks for what is left, unless that is under way or was done a while ago. `noted` says that something is.
    pub fn look(&mut self, context: &Arc<Context>, noted: bool) {
        let is_due = noted || self.started.is_none_or(|at| at.elapsed() >= EVERY);
        if !is_due || !matches!(self.state, State::Idle) {
            return;
        }
        if self.started.is_none() {
            self.steps.spawn(async {
                tokio::time::sleep(PATIENCE).await;
                Step::Late
            });
        }
        (self.state, self.started) = (State::Looking, Some(Instant::now()));
        let root = context.options.root_dir.clone();
        self.steps.spawn_blocking(move || Step::Found(volumes::claimed(&root)));
    }

    /// Removes what the pods of these UIDs have left, which are not to be made before that is done.
    pub fn remove(&mut self, context: &Arc<Context>, uids: BTreeSet<String>) {
        if uids.is_empty() {
            return self.end();
        }
        self.state = State::Removing(uids.clone());
        let context = Arc::clone(context);
        self.steps.spawn_blocking(move || {
            let left = cleanup::remove_all(&context.options, &context.cgroups, &uids);
            Step::Removed(uids, left)
        });
    }

    fn end(&mut self) {
        (self.state, self.first_is_over) = (State::Idle, true);
    }

    /// Whether pods wait for the first time to be over.
    pub fn holds_all_up(&self) -> bool {
        !self.first_is_over && !matches!(self.state, State::Idle)
    }

    /// Whether what the pod of this UID has left is being removed.
    pub fn is_removing(&self, uid: &str) -> bool {
        matches!(&self.state, State::Removing(uids) if uids.contains(uid))
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::agent::options::AgentOptions;
    use crate::agent::probe::Prober;
    use crate::runtime::ContainerRuntime;
    use crate::testing::runtime::FakeRuntime;

    #[tokio::test(start_paused = true)]
    async fn what_is_found_is_removed_once_and_soon_is_not_late() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new("n");
        options.root_dir = dir.path().join("root");
        options.pod_logs_dir = dir.path().join("pods");
        volumes::claim(&options.root_dir, "gone").unwrap();
        let runtime = Arc::new(FakeRuntime::new()) as Arc<dyn ContainerRuntime>;
        let checker = Arc::new(Prober::new(Arc::clone(&runtime)));
        let context = Context::new(options, runtime, checker, CancellationToken::new());
        let mut clearing = Clearing::default();
        assert!(!clearing.holds_all_up() && clearing.next().await.is_none());
        clearing.look(&context, false);
        assert!(clearing.holds_all_up());
        let gone = BTreeSet::from(["gone".to_owned()]);
        let Some(Step::Found(found)) = clearing.next().await else { panic!("nothing found") };
        assert_eq!(found, gone);
        clearing.remove(&context, found);
        assert!(clearing.is_removing("gone") && !clearing.is_removing("other"));
        let Some(Step::Removed(removed, left)) = clearing.next().await else { panic!("nothing removed") };
        assert!(removed == gone && left.is_empty() && !clearing.is_removing("gone") && !clearing.holds_all_up());
        // Nothing is said of a limit that was kept, and nothing is looked for again so soon, unless something is noted.
        clearing.look(&context, false);
        assert!(clearing.next().await.is_none());
        clearing.look(&context, true);
        assert!(matches!(clearing.next().await, Some(Step::Found(found)) if found.is_empty()));
    }
}
