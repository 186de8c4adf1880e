//! What taking a node over has to do, from where its manifests are and whether the agent is in the unit.

use std::fmt;
use std::sync::LazyLock;

use crate::workflow::phase::{Phase, Phases};

/// kubeadm's name of etcd's.
const ETCD_MANIFEST: &str = "etcd.yaml";

/// What a phase of taking over does. kubeadm has no such command, so the names are ours, but for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Fetches the images that the agent's runtime has not got.
    Images,
    /// Has the kubelet stop its static pods, and stops the kubelet.
    Stop,
    /// Puts the agent in its place.
    Install,
    /// Waits until the agent reports every component healthy.
    Wait,
    /// Keeps the configuration that kubeadm made the node from.
    Settings,
}

/// The phases of `adopt`.
pub static PHASES: LazyLock<Phases<Part>> = LazyLock::new(|| {
    let row = |name, title, work| Phase { name, aliases: &[], title, children: vec![], work };
    Phases {
        list: vec![
            row("images", "fetch the images that are missing", Part::Images),
            row("stop-kubelet", "have the kubelet stop its static pods, and stop it", Part::Stop),
            row("install-agent", "put the agent in the kubelet's place", Part::Install),
            row("wait-control-plane", "wait until the control plane is healthy", Part::Wait),
            row("read-config", "read the node's configuration from the cluster", Part::Settings),
        ],
        not_built: &[],
    }
});

/// One step. Every step may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Move these manifests aside, so that the kubelet itself stops their pods.
    SetAside(Vec<String>),
    /// Wait until the processes of those that are aside have ended.
    AwaitEnd,
    /// Stop the kubelet.
    StopKubelet,
    /// Put the agent into the kubelet's unit.
    Install,
    /// Move these manifests back.
    PutBack(Vec<String>),
    /// Start the unit, which is the agent now.
    StartAgent,
    /// Wait until the agent reports every component healthy.
    AwaitHealth,
}

impl Step {
    /// The phase that it is of.
    pub fn part(&self) -> Part {
        match self {
            Self::SetAside(_) | Self::AwaitEnd | Self::StopKubelet => Part::Stop,
            Self::Install | Self::PutBack(_) | Self::StartAgent => Part::Install,
            Self::AwaitHealth => Part::Wait,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside(files) => write!(f, "move {} aside, so that the kubelet stops their pods", files.join(", ")),
            Self::AwaitEnd => write!(f, "wait until the pods have ended"),
            Self::StopKubelet => write!(f, "stop the kubelet"),
            Self::Install => write!(f, "put the agent into the kubelet's unit, by a drop-in"),
            Self::PutBack(files) => write!(f, "move {} back", files.join(", ")),
            Self::StartAgent => write!(f, "start the unit, which is the agent now"),
            Self::AwaitHealth => write!(f, "wait until the control plane is healthy"),
        }
    }
}

/// What is there now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Names of the manifests in their directory.
    pub in_place: Vec<String>,
    /// Names of those that an earlier run has moved aside.
    pub aside: Vec<String>,
    /// Whether the agent is in the unit.
    pub installed: bool,
    /// Whether the unit runs.
    pub running: bool,
}

/// The steps, in order. Where the agent is in the unit the kubelet was stopped before.
pub fn plan(observed: &Observed) -> Vec<Step> {
    let Observed { in_place, aside, installed, running } = observed;
    let mut steps = Vec::new();
    let mut to_put_back = aside.clone();
    if !installed {
        // etcd last: an API server that ends without it takes all the time it is given.
        let (last, first): (Vec<_>, Vec<_>) = in_place.iter().cloned().partition(|name| name == ETCD_MANIFEST);
        for names in [first, last].into_iter().filter(|names| !names.is_empty()) {
            steps.extend([Step::SetAside(names), Step::AwaitEnd]);
        }
        if in_place.is_empty() {
            steps.push(Step::AwaitEnd);
        }
        steps.extend([Step::StopKubelet, Step::Install]);
        to_put_back.extend(in_place.iter().filter(|name| !aside.contains(name)).cloned());
        to_put_back.sort();
    }
    let runs_whole = *installed && *running && to_put_back.is_empty();
    if !to_put_back.is_empty() {
        steps.push(Step::PutBack(to_put_back));
    }
    if !runs_whole {
        steps.push(Step::StartAgent);
    }
    steps.push(Step::AwaitHealth);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn wherever_a_run_was_cut_off_the_next_one_plans_the_rest() {
        use Step::{AwaitEnd, AwaitHealth, Install, PutBack, SetAside, StartAgent, StopKubelet};
        let all = names(&["a", "b"]);
        let of = |in_place: &[&str], aside: &[&str], installed| {
            plan(&Observed { in_place: names(in_place), aside: names(aside), installed, running: !installed })
        };
        let (ending, starting) = ([AwaitEnd, StopKubelet, Install], [StartAgent, AwaitHealth]);
        let whole = |first: Vec<Step>, back: &[String]| {
            [first, ending.to_vec(), vec![PutBack(back.to_vec())], starting.to_vec()].concat()
        };
        assert_eq!(of(&["a", "b"], &[], false), whole(vec![SetAside(all.clone())], &all));
        let etcd_last = vec![SetAside(names(&["a", "f"])), AwaitEnd, SetAside(names(&["etcd.yaml"]))];
        assert_eq!(of(&["a", "etcd.yaml", "f"], &[], false), whole(etcd_last, &names(&["a", "etcd.yaml", "f"])));
        assert_eq!(of(&["b"], &["a"], false), whole(vec![SetAside(names(&["b"]))], &all));
        // Copied, and not removed yet.
        assert_eq!(of(&["a", "b"], &["a"], false), whole(vec![SetAside(all.clone())], &all));
        assert_eq!(of(&[], &["a", "b"], false), whole(vec![], &all));
        assert_eq!(of(&["a"], &["b"], true), [PutBack(names(&["b"])), StartAgent, AwaitHealth]);
        assert_eq!(of(&["a", "b"], &[], true), starting);
        let done = Observed { in_place: all, installed: true, running: true, ..Observed::default() };
        assert_eq!(plan(&done), [AwaitHealth]);
    }

    #[test]
    fn the_steps_of_every_plan_are_in_the_order_of_the_phases() {
        let order: Vec<Part> = PHASES.list.iter().map(|phase| phase.work).collect();
        let place = |step: &Step| order.iter().position(|part| *part == step.part()).unwrap();
        let (none, all) = (vec![], names(&["a", "etcd.yaml"]));
        for (in_place, aside) in [(&all, &none), (&none, &all), (&all, &all)] {
            for installed in [false, true] {
                let (in_place, aside) = (in_place.clone(), aside.clone());
                let steps = plan(&Observed { in_place, aside, installed, running: !installed });
                assert!(steps.is_sorted_by_key(place), "{steps:?}");
            }
        }
    }
}
