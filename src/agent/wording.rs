//! The words of events and of containers' waiting: which tools match, so that they are the kubelet's, to the letter.
//!
//! [`EVENTS`] and [`WAITING`] have a row for each: what is said here beside what a kubelet of 1.36 says, and where the two differ, why. A
//! `{}` stands for what differs from one event to the next, in the order of the kubelet's own arguments.

use std::fmt::Display;
use std::time::Duration;

use super::pod::PodKey;
use crate::config::GoDuration;

/// The form of a message, with a `{}` for each part that is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form(pub &'static str);

impl Form {
    /// The message with its parts, in order. Parts that the form has no place for are left out.
    pub fn with(self, parts: &[&dyn Display]) -> String {
        let mut pieces = self.0.split("{}");
        let first = pieces.next().unwrap_or_default().to_owned();
        let filled = pieces.zip(parts).map(|(piece, part)| format!("{part}{piece}"));
        filled.fold(first, |text, piece| text + &piece)
    }
}

/// A row of the table.
#[cfg_attr(not(test), allow(dead_code, reason = "the forms are what is used; the table says where they come from"))]
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The reason of the event, or of the waiting.
    pub reason: &'static str,
    /// The form of its message.
    pub ours: Form,
    /// What a kubelet says.
    pub kubelet: Kubelet,
}

/// What a kubelet says where this agent says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kubelet {
    /// The same.
    Same,
    /// This, and why something else is said here.
    Other(&'static str, &'static str),
    /// Nothing, and why something is said here.
    Nothing(&'static str),
}

macro_rules! forms {
    ($($name:ident = $form:literal;)*) => { $(pub const $name: Form = Form($form);)* };
}

forms! {
    CREATED = "Container created";
    STARTED = "Container started";
    ERROR = "Error: {}";
    STOPPING = "Stopping container {}";
    FAILED_LIVENESS = "Container {} failed liveness probe";
    FAILED_STARTUP = "Container {} failed startup probe";
    CHANGED = "Container {} definition changed";
    RESTARTED = "{}, will be restarted";
    KILLED_FOR_HOOK = "FailedPostStartHook";
    BACK_OFF_RESTARTING = "Back-off restarting failed container {} in pod {}";
    WAITS_FOR_RESTART = "back-off {} restarting failed container={} pod={}";
    BACK_OFF_PULLING = "Back-off pulling image {}";
    WAITS_FOR_PULL = "Back-off pulling image {}: {}: {}";
    PULLING = "Pulling image {}";
    PRESENT = "Container image {} already present on machine";
    PULLED = "Successfully pulled image {} in {} ({} including waiting). Image size: {} bytes.";
    PULL_FAILED = "Failed to pull image {}: {}";
    NEVER_PULLED = "Container image {} is not present with pull policy of Never";
    INSPECT_FAILED = "Failed to inspect image {}: {}";
    BAD_IMAGE_NAME = "Failed to apply default image tag {}: couldn't parse image name {}: invalid reference format";
    NO_SANDBOX = "Failed to create pod sandbox: {}";
    SANDBOX_CHANGED = "Pod sandbox changed, it will be killed and re-created.";
    SET_UP_FAILED = "MountVolume.SetUp failed for volume {} : {}";
    NOT_MOUNTED = "Unable to attach or mount volumes: {}";
    NO_NETWORK = "network is not ready: {}";
    PROBE_FAILED = "{} probe failed: {}";
    PROBE_ERRORED = "{} probe errored and resulted in {} state: {}";
    PROBE_WARNING = "{} probe warning: {}";
    POST_START_FAILED = "PostStartHook failed";
    PRE_STOP_FAILED = "PreStopHook failed";
    NO_PULL_SECRETS =
        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.";
    SURGE_STARTED = "Starting beside the instance that runs, which serves until this one is ready";
    SURGE_COMPLETED = "Ready and serving: the instance before is stopped";
    SURGE_SKIPPED = "The instance before is stopped first: {}";
    NOT_MADE_AHEAD = "The instance before is stopped although this one is not made yet: {}";
    STARTING = "Starting kubelet.";
    NODE_STATUS = "Node {} status is now: {}";
    REBOOTED = "Node {} has been rebooted, boot id: {}";
    RELEASED = "Released leader lease {}, whose holder has ended";
    SAID = "{}";
}

/// Why a kubelet has no such events.
const NO_SURGE: &str = "a kubelet starts no static pod beside the one it replaces";

const NOT_AHEAD: &str = "a kubelet makes no static pod before the one it replaces has ended";

const fn same(reason: &'static str, ours: Form) -> Row {
    Row { reason, ours, kubelet: Kubelet::Same }
}

const fn apart(reason: &'static str, ours: Form, kubelet: Kubelet) -> Row {
    Row { reason, ours, kubelet }
}

/// Every event.
#[cfg_attr(not(test), allow(dead_code, reason = "the forms are what is used; the table says where they come from"))]
pub const EVENTS: &[Row] = &[
    // Events of containers.
    same("Created", CREATED),
    same("Started", STARTED),
    same("Failed", ERROR),
    same("Failed", PULL_FAILED),
    same("Killing", STOPPING),
    same("Killing", FAILED_LIVENESS),
    same("Killing", FAILED_STARTUP),
    same("Killing", CHANGED),
    same("Killing", RESTARTED),
    same("Killing", KILLED_FOR_HOOK),
    same("BackOff", BACK_OFF_RESTARTING),
    same("BackOff", BACK_OFF_PULLING),
    same("Pulling", PULLING),
    apart(
        "Pulled",
        PRESENT,
        Kubelet::Other(
            "Container image {} already present on machine and can be accessed by the pod",
            "the agent does not check whether a pod's own credentials could have pulled it",
        ),
    ),
    same("Pulled", PULLED),
    same("ErrImageNeverPull", NEVER_PULLED),
    same("InspectFailed", INSPECT_FAILED),
    same("InspectFailed", BAD_IMAGE_NAME),
    same("Unhealthy", PROBE_FAILED),
    same("Unhealthy", PROBE_ERRORED),
    same("ProbeWarning", PROBE_WARNING),
    same("FailedPostStartHook", POST_START_FAILED),
    same("FailedPreStopHook", PRE_STOP_FAILED),
    // Events of pods.
    same("FailedCreatePodSandBox", NO_SANDBOX),
    same("SandboxChanged", SANDBOX_CHANGED),
    same("FailedMount", SET_UP_FAILED),
    same("FailedMount", NOT_MOUNTED),
    same("NetworkNotReady", NO_NETWORK),
    same("FailedToRetrieveImagePullSecret", NO_PULL_SECRETS),
    same("DeadlineExceeded", SAID),
    apart(
        "FailedSync",
        SAID,
        Kubelet::Other("error determining status: {}", "it is the pod's worker that has crashed"),
    ),
    apart(
        "MissingClusterDNS",
        SAID,
        Kubelet::Other(
            "pod: {}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {} policy. Falling back to {} policy.",
            "the field to set is named",
        ),
    ),
    apart(
        "DNSConfigForming",
        SAID,
        Kubelet::Other(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            "one form for name servers and search domains",
        ),
    ),
    apart("InvalidEnvironmentVariableNames", SAID, Kubelet::Nothing("a kubelet of 1.34 and later takes such names")),
    apart("VolumeLimitExceeded", SAID, Kubelet::Nothing("a kubelet evicts the pod instead")),
    apart("LeaderElection", RELEASED, Kubelet::Nothing("a kubelet lets the lease of what has ended run out")),
    apart("FailedMirrorPod", SAID, Kubelet::Nothing("a kubelet only logs it")),
    apart("SurgeStarted", SURGE_STARTED, Kubelet::Nothing(NO_SURGE)),
    apart("SurgeCompleted", SURGE_COMPLETED, Kubelet::Nothing(NO_SURGE)),
    apart("SurgeSkipped", SURGE_SKIPPED, Kubelet::Nothing(NO_SURGE)),
    apart("NotMadeAhead", NOT_MADE_AHEAD, Kubelet::Nothing(NOT_AHEAD)),
    // Refusals have the reasons of the admission and its messages; this one is of an admission that failed.
    same("UnexpectedAdmissionError", SAID),
    // Events of the Node.
    same("Starting", STARTING),
    same("NodeReady", NODE_STATUS),
    same("NodeNotReady", NODE_STATUS),
    same("NodeHasSufficientMemory", NODE_STATUS),
    same("NodeHasInsufficientMemory", NODE_STATUS),
    same("NodeHasNoDiskPressure", NODE_STATUS),
    same("NodeHasDiskPressure", NODE_STATUS),
    same("NodeHasSufficientPID", NODE_STATUS),
    same("NodeHasInsufficientPID", NODE_STATUS),
    same("NodeSchedulable", NODE_STATUS),
    same("NodeNotSchedulable", NODE_STATUS),
    same("Rebooted", REBOOTED),
];

/// Every reason of a container that waits.
#[cfg_attr(not(test), allow(dead_code, reason = "as above"))]
pub const WAITING: &[Row] = &[
    apart("ContainerCreating", SAID, Kubelet::Nothing("what is waited for is said")),
    apart("PodInitializing", SAID, Kubelet::Nothing("what is waited for is said")),
    same("CrashLoopBackOff", WAITS_FOR_RESTART),
    same("ErrImagePull", SAID),
    same("ImagePullBackOff", WAITS_FOR_PULL),
    same("InvalidImageName", BAD_IMAGE_NAME),
    same("ErrImageNeverPull", NEVER_PULLED),
    same("ImageInspectError", INSPECT_FAILED),
    same("CreateContainerConfigError", SAID),
    same("CreateContainerError", SAID),
    same("RunContainerError", SAID),
    same("PostStartHookError", SAID),
];

/// A pod in the kubelet's log form: `NAME_NAMESPACE(UID)`.
pub fn pod(key: &PodKey, uid: &str) -> String {
    format!("{}_{}({uid})", key.name, key.namespace)
}

/// A text as Go quotes it with `%q`.
pub fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A span of time as Go writes it: `1m20s`.
pub fn span(time: Duration) -> GoDuration {
    GoDuration::from(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of a real kubelet 1.36.2, each with the parts that were filled in.
    const SEEN: &[(Form, &[&str], &str)] = &[
        (ERROR, &["ErrImagePull"], "Error: ErrImagePull"),
        (STOPPING, &["c"], "Stopping container c"),
        (FAILED_LIVENESS, &["c"], "Container c failed liveness probe"),
        (RESTARTED, &["Container c failed startup probe"], "Container c failed startup probe, will be restarted"),
        (BACK_OFF_RESTARTING, &["c", "p_ns(u)"], "Back-off restarting failed container c in pod p_ns(u)"),
        (WAITS_FOR_RESTART, &["1m20s", "c", "p_ns(u)"], "back-off 1m20s restarting failed container=c pod=p_ns(u)"),
        (
            WAITS_FOR_PULL,
            &["\"x:1\"", "ErrImagePull", "not found"],
            "Back-off pulling image \"x:1\": ErrImagePull: not found",
        ),
        (NO_SANDBOX, &["no"], "Failed to create pod sandbox: no"),
        (
            SET_UP_FAILED,
            &["\"v\"", "hostPath type check failed: /x is not a directory"],
            "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: /x is not a directory",
        ),
        (
            PROBE_FAILED,
            &["Liveness", "command timed out: \"sleep 9\" timed out after 1s"],
            "Liveness probe failed: command timed out: \"sleep 9\" timed out after 1s",
        ),
        (PROBE_ERRORED, &["Startup", "unknown", "x"], "Startup probe errored and resulted in unknown state: x"),
        (NODE_STATUS, &["n", "NodeReady"], "Node n status is now: NodeReady"),
        (
            BAD_IMAGE_NAME,
            &["\"No Such\"", "\"No Such\""],
            "Failed to apply default image tag \"No Such\": couldn't parse image name \"No Such\": invalid reference format",
        ),
    ];

    #[test]
    fn forms_are_filled_in_to_what_a_kubelet_says() {
        for (form, parts, expected) in SEEN {
            let parts: Vec<&dyn Display> = parts.iter().map(|part| part as &dyn Display).collect();
            assert_eq!(form.with(&parts), *expected);
            assert!(
                EVENTS.iter().chain(WAITING).any(|row| row.ours == *form && row.kubelet == Kubelet::Same),
                "{form:?}"
            );
        }
        assert_eq!(span(Duration::from_secs(80)).to_string(), "1m20s");
        assert_eq!(pod(&PodKey { namespace: "ns".into(), name: "p".into() }, "u"), "p_ns(u)");
    }

    #[test]
    fn a_row_stands_once_and_where_it_differs_it_says_why() {
        for (index, row) in [EVENTS, WAITING].into_iter().flat_map(|table| table.iter().enumerate()) {
            let same = |other: &&Row| (other.reason, other.ours) == (row.reason, row.ours);
            let places = |table: &[Row]| table.iter().filter(same).count();
            assert!(places(EVENTS) <= 1 && places(WAITING) <= 1, "{index}: {row:?}");
            match row.kubelet {
                Kubelet::Same => {}
                Kubelet::Nothing(why) => assert!(!why.is_empty(), "{row:?}"),
                Kubelet::Other(theirs, why) => assert!(!why.is_empty() && theirs != row.ours.0, "{row:?}"),
            }
        }
    }

    /// Every reason that the sources give to an event stands in the table; refusals have the admission's.
    #[test]
    fn every_event_of_the_sources_is_in_the_table() {
        let mut unknown = Vec::new();
        let calls = ["note_event(", "note_trouble(", "events.normal(", "events.warning(", "events.node("];
        for (file, text) in sources() {
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in calls {
                for after in product.split(call).skip(1) {
                    let arguments: String = after.chars().take(90).collect();
                    let reason = arguments.split('"').nth(1).filter(|word| word.starts_with(char::is_uppercase));
                    let Some(reason) = reason.filter(|word| word.chars().all(char::is_alphanumeric)) else { continue };
                    if !EVENTS.iter().any(|row| row.reason == reason) {
                        unknown.push(format!("{file}: {reason}"));
                    }
                }
            }
        }
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// The sources of the agent that make no tests.
    fn sources() -> Vec<(String, String)> {
        let (mut found, mut dirs) = (Vec::new(), vec![std::path::PathBuf::from("src/agent")]);
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true if entry.ends_with("tests") => {}
                    true => dirs.push(entry),
                    false if entry.ends_with("tests.rs") => {}
                    false => found.push((entry.display().to_string(), std::fs::read_to_string(&entry).unwrap())),
                }
            }
        }
        assert!(found.len() > 100);
        found
    }
}
