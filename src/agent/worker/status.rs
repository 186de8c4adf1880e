//! What a worker knows of its pod, put as the API's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, LinuxContainerUser, PodStatus, ResourceRequirements, VolumeMountStatus,
};

use super::report::{Exit, Facts, Shown, state_of};
use super::view::{ContainerView, Instance, PodView, Pull, Role};
use crate::agent::control::report::PodReport;
use crate::agent::pod::StaticPod;
use crate::agent::pod::phase::Phase;
use crate::agent::pod::resources;
use crate::agent::status;
use crate::agent::status::{ContainerFacts, Ended, Known, State};
use crate::runtime::ContainerUser;

/// The status of a pod whose report is this one.
pub fn pod(facts: &Facts<'_>, report: &PodReport) -> PodStatus {
    let uid = facts.own_uid();
    let containers = match facts.pod {
        Some((pod, view)) => {
            let both = view.containers.iter().zip(pod.containers());
            both.map(|(container, (_, spec))| facts.container_facts(&uid, container, spec)).collect()
        }
        None => facts.own(&uid).filter(|one| !one.record.is_sandbox).map(|one| facts.orphan_facts(one)).collect(),
    };
    // Nothing of it runs any more: what was not seen to end will not be.
    let containers = if facts.plan.finished.is_some() { status::all_ended(containers) } else { containers };
    let address = |one: &&Instance| one.is_running() && one.record.ip.is_some();
    let seen = facts.own(&uid).filter_map(|one| one.record.created_at).min();
    let status = status::status(&Known {
        spec: facts.pod.map(|(pod, _)| &pod.spec),
        // What the API server has as ended stays so, though its containers may not have ended yet.
        phase: facts.pod.and_then(|(pod, _)| pod.ended()).unwrap_or(report.phase),
        containers,
        sandbox_ready: facts.sandbox_ready(&uid, report.phase),
        host_ip: facts.host_ip,
        pod_ip: facts.own(&uid).find(address).and_then(|one| one.record.ip.as_deref()),
        failure: facts.plan.failure,
        conditions: facts.pod.and_then(|(pod, _)| pod.bound.as_deref()).map_or(&[], |bound| &bound.conditions),
        // An agent that was restarted finds its pods begun.
        start_time: seen.unwrap_or(facts.now).min(facts.now),
        now: facts.now,
    });
    PodStatus { ephemeral_container_statuses: facts.ephemeral(&uid), ..status }
}

/// The status of a pod that was not looked at yet.
pub fn first(pod: &StaticPod, host_ip: Option<&str>, now: Timestamp) -> PodStatus {
    let view = PodView::of(pod, false);
    let blank = |(container, (_, spec)): (&ContainerView, (bool, &Container))| ContainerFacts {
        name: container.name.clone(),
        init: container.role != Role::Main,
        sidecar: container.role == Role::Sidecar,
        image: spec.image.clone().unwrap_or_default(),
        image_id: String::new(),
        id: None,
        state: State::waiting(view.initial_reason(), ""),
        last: None,
        ready: false,
        started: false,
        restarts: 0,
        mounts: mounts(spec, false),
        resources: None,
        allocated: None,
        user: None,
    };
    status::status(&Known {
        spec: Some(&pod.spec),
        phase: Phase::Pending,
        containers: view.containers.iter().zip(pod.containers()).map(blank).collect(),
        sandbox_ready: false,
        host_ip,
        pod_ip: None,
        failure: None,
        conditions: &[],
        start_time: now,
        now,
    })
}

impl<'a> Facts<'a> {
    /// Everything of the pod of this UID.
    fn own(&self, uid: &str) -> impl Iterator<Item = &'a Instance> {
        self.seen.instances.values().filter(move |one| one.uid() == uid)
    }

    /// What the containers share is there. A pod that needs no sandbox has all it needs once its image was looked for,
    /// which comes after its volumes.
    fn sandbox_ready(&self, uid: &str, phase: Phase) -> bool {
        let ended = matches!(phase, Phase::Succeeded | Phase::Failed);
        match self.pod {
            _ if ended => false,
            Some((_, view)) if view.needs_sandbox => self.own(uid).any(|one| one.record.is_sandbox && one.is_running()),
            _ => self.own(uid).next().is_some() || self.slots.values().any(|slot| slot.pull != Pull::Idle),
        }
    }

    /// Statuses of the ephemeral containers; None where there are none.
    fn ephemeral(&self, uid: &str) -> Option<Vec<ContainerStatus>> {
        let (pod, view) = self.pod.filter(|(pod, _)| !pod.ephemeral.is_empty())?;
        let both = view.of_role(Role::Ephemeral).zip(&pod.ephemeral);
        let known = both.map(|(container, spec)| self.container_facts(uid, container, spec));
        Some(known.map(status::ephemeral).collect())
    }

    fn container_facts(&self, uid: &str, container: &'a ContainerView, spec: &Container) -> ContainerFacts {
        let shown: Shown<'a> = self.shown(uid, container);
        let falls_back = falls_back(spec);
        // What runs may be of another image than the manifest names by now, or have another name in the runtime.
        let image = shown.current.map(|one| &one.record.image).filter(|image| !image.is_empty());
        let last = shown.last.map(|exit| self.ended(exit, falls_back));
        ContainerFacts {
            name: container.name.clone(),
            init: container.role != Role::Main,
            sidecar: container.role == Role::Sidecar,
            image: image.or(spec.image.as_ref()).cloned().unwrap_or_default(),
            image_id: shown.current.map(image_id).unwrap_or_default(),
            id: shown.current.map(|one| one.record.reference()),
            state: shown.state.map(|exit| self.ended(exit, falls_back)),
            last: last.or_else(|| shown.lost.then(Ended::lost)),
            // What is being stopped serves until it has ended, by its own probe's word.
            ready: shown.health.is_some_and(|health| health.ready),
            started: shown.health.is_some_and(|health| health.started),
            restarts: shown.restarts,
            mounts: mounts(spec, self.recursive_read_only),
            resources: shown.current.map(|one| self.given(one, spec)),
            allocated: shown.current.and(spec.resources.as_ref()).and_then(|resources| resources.requests.clone()),
            user: shown.current.and_then(|one| one.record.user.as_ref()).map(user),
        }
    }

    /// What a container was given: what it has by its pod's limits too, while it runs.
    fn given(&self, one: &Instance, spec: &Container) -> ResourceRequirements {
        match self.pod.filter(|_| one.is_running()) {
            Some((pod, _)) => resources::given(&pod.spec, spec),
            None => spec.resources.clone().unwrap_or_default(),
        }
    }

    /// The manifest is not known any more: what the labels say.
    fn orphan_facts(&self, one: &Instance) -> ContainerFacts {
        ContainerFacts {
            name: one.record.name.container.clone(),
            init: false,
            sidecar: false,
            image: one.record.image.clone(),
            image_id: image_id(one),
            id: Some(one.record.reference()),
            state: state_of(one).map(|exit| self.ended(exit, false)),
            last: None,
            ready: false,
            started: false,
            restarts: one.record.name.attempt,
            mounts: vec![],
            resources: None,
            allocated: None,
            user: one.record.user.as_ref().map(user),
        }
    }

    /// How an instance ended: its message is what it wrote, else, where it asked for that and failed, the end of its
    /// log, else what the runtime says.
    fn ended(&self, exit: Exit<'_>, falls_back: bool) -> Ended {
        let tail = exit.instance.and_then(|one| self.log_tails.get(&one.record.id));
        let written = tail.map_or("", |tail| &tail.message);
        let log = tail.map_or("", |tail| &tail.tail);
        let message = match (written, falls_back && exit.exit_code != 0) {
            ("", true) if !log.is_empty() => log,
            ("", _) => exit.message,
            (written, _) => written,
        };
        Ended {
            id: exit.instance.map(|one| one.record.reference()),
            exit_code: exit.exit_code,
            reason: exit.reason.to_owned(),
            message: message.to_owned(),
            started_at: exit.started_at,
            finished_at: exit.finished_at,
        }
    }
}

/// Whether the end of a container's log stands for the message that it did not write (`terminationMessagePolicy`).
pub(super) fn falls_back(container: &Container) -> bool {
    container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
}

/// What is mounted in a container, as its spec says it. `recursive`: the runtime can mount read-only all the way down.
fn mounts(container: &Container, recursive: bool) -> Vec<VolumeMountStatus> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        let all_the_way = recursive && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
        let words = if all_the_way { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| words.to_owned()),
            ..VolumeMountStatus::default()
        }
    });
    mounts.collect()
}

fn user(user: &ContainerUser) -> LinuxContainerUser {
    let groups = Some(user.groups.clone()).filter(|groups| !groups.is_empty());
    LinuxContainerUser { uid: user.uid, gid: user.gid, supplemental_groups: groups }
}

/// Docker's images have an id, which the API names with the runtime; who pulls by digest has that one too, but no image
/// has it by itself. Other runtimes' names of images stand for themselves.
fn image_id(one: &Instance) -> String {
    let id = &one.record.image_id;
    if id.is_empty() || one.record.runtime != "docker" { id.clone() } else { format!("docker://{id}") }
}
