//! What is to be done next for one pod and its mirror. Pure: no clock, no API server.

use k8s_openapi::api::core::v1::PodStatus;

/// What is kept of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Its own UID.
    pub uid: String,
    /// Its resource version.
    pub version: String,
    /// The hash of the manifest it was made of, which is the static pod's UID.
    pub hash: String,
    /// UID of the Node that owns it, None where none does.
    pub node: Option<String>,
    /// A client has deleted it: it waits for the node to agree.
    pub deleting: bool,
}

/// What is known of a pod here.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// Its UID.
    pub hash: &'a str,
    /// Its manifest is gone, and its containers are being stopped.
    pub ending: bool,
    /// Containers of the pod that had its name before have not ended yet.
    pub succeeds: bool,
    /// The status of the one among them that the mirror is of, as far as its manifest is known.
    pub predecessor: Option<&'a PodStatus>,
    /// Its status; None before its worker has looked at it. An agent that has just started knows no more than the
    /// manifest, and the mirror more than that.
    pub status: Option<&'a PodStatus>,
}

/// Everything a step is planned from.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The pod here, None when it is neither wanted nor there.
    pub local: Option<Local<'a>>,
    /// Its mirror, None when there is none.
    pub mirror: Option<&'a Mirror>,
    /// UID of the Node, None while it is not registered.
    pub node: Option<&'a str>,
    /// The status that this very mirror has, as far as that is known.
    pub shown: Option<&'a PodStatus>,
    /// Whether every pod there is is known, so that one that is missing is gone.
    pub settled: bool,
}

/// One request to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Makes the mirror.
    Create,
    /// Deletes it, at once: only the node can say that a mirror has ended.
    Delete,
    /// Gives it the pod's status.
    Status,
}

/// The next step; None when all is well, or when nothing can be done now.
pub fn step(case: &Case<'_>) -> Option<Step> {
    match (&case.local, case.mirror) {
        (None, None) => None,
        (None, Some(_)) => case.settled.then_some(Step::Delete),
        // Who deletes the mirror of a pod that ends has what he wants soon.
        (Some(local), None) => (!local.ending && case.node.is_some()).then_some(Step::Create),
        (Some(local), Some(mirror)) => {
            let same_node = case.node.is_none_or(|node| mirror.node.as_deref() == Some(node));
            let fits = mirror.hash == local.hash && !mirror.deleting && same_node;
            // Before the worker has looked, containers of the mirror's pod may run.
            let awaits = mirror.hash != local.hash && (local.succeeds || local.status.is_none());
            match local.ending {
                // It is as its own containers are until they have ended.
                false if awaits => local.predecessor.filter(|status| case.shown != Some(*status)).map(|_| Step::Status),
                // It is left until the containers have ended, whatever became of it.
                true => sends(case, local, mirror),
                false if fits => sends(case, local, mirror),
                // Deleted without a Node, it could not be recreated.
                false => case.node.map(|_| Step::Delete),
            }
        }
    }
}

fn sends(case: &Case<'_>, local: &Local<'_>, mirror: &Mirror) -> Option<Step> {
    let status = local.status.filter(|status| status.phase.is_some())?;
    (mirror.hash == local.hash && case.shown != Some(status)).then_some(Step::Status)
}
