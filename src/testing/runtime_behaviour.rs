#![allow(clippy::unwrap_used, reason = "test support")]

//! What every container runtime must do, asked of the fake and of the real ones alike.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::registry::Registry;
use super::runtime::{Behaviour, FakeRuntime, container_config};
use crate::runtime::*;

const POD: &str = "behaviour-cp1";

/// Every wait here is for something that takes a real runtime a second at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test with an owner of its own and removes the owner's containers, whether the test passes or panics.
pub async fn with_owner<F: Future<Output = ()>>(runtime: &dyn ContainerRuntime, test: impl FnOnce(String) -> F) {
    let unique = format!("test-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
    let result = AssertUnwindSafe(test(unique.clone())).catch_unwind().await;
    let mut left = runtime.list(&unique).await.unwrap();
    // podman removes no sandbox that somebody is in.
    left.sort_by_key(|container| container.is_sandbox);
    for container in left {
        runtime.remove(&container.id).await.unwrap();
    }
    let _ = std::fs::remove_dir_all(log_directory(&unique));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A container of a shell script: it says `ready`, then does `script`. Containers of other owners have other names.
pub fn script(owner: &str, container: &str, image: &str, script: &str) -> ContainerConfig {
    let mut config = container_config(owner, &format!("{POD}-{owner}"), container, 0, image);
    config.command = ["sh", "-c"].map(str::to_owned).to_vec();
    config.args = vec![format!("echo ready; {script}")];
    config
}

/// The same in the owner's sandbox, which is made where there is none, if the runtime has containers in sandboxes only.
/// Its log is in a directory of the owner's.
pub async fn placed(runtime: &dyn ContainerRuntime, mut config: ContainerConfig) -> ContainerConfig {
    if !runtime.needs_sandbox() {
        return config;
    }
    let owner = config.labels[labels::OWNER].clone();
    let directory = log_directory(&owner);
    let log = directory.join(&config.name.container).join(format!("{}.log", config.name.attempt));
    config.labels.insert(labels::LOG_PATH.to_owned(), log.display().to_string());
    let mut sandbox = sandbox_of(&config, &config.image);
    sandbox.log_directory = Some(directory.display().to_string());
    sandbox.privileged = config.security.privileged;
    let there = runtime.list(&owner).await.unwrap().into_iter().find(|one| one.is_sandbox);
    config.sandbox = Some(match there {
        Some(there) => there.id,
        None => runtime.create_sandbox(&sandbox).await.unwrap(),
    });
    config.sandbox_config = Some(Box::new(sandbox));
    config
}

fn log_directory(owner: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("kubeboot-logs-{owner}"))
}

/// The containers of an owner.
async fn containers(runtime: &dyn ContainerRuntime, owner: &str) -> Vec<ContainerRecord> {
    runtime.list(owner).await.unwrap().into_iter().filter(|one| !one.is_sandbox).collect()
}

/// A sandbox for a container, in the machine's network.
fn sandbox_of(config: &ContainerConfig, image: &str) -> SandboxConfig {
    let mut labels = config.labels.clone();
    labels.insert(labels::DOCKER_TYPE.to_owned(), "podsandbox".to_owned());
    labels.insert(labels::CONTAINER_NAME.to_owned(), "POD".to_owned());
    SandboxConfig {
        name: ContainerName { container: "POD".into(), ..config.name.clone() },
        image: image.to_owned(),
        hostname: None,
        network: NetworkMode::Host,
        ports: vec![],
        selinux: vec![],
        cgroup_parent: None,
        log: LogLimits::default(),
        labels,
        annotations: [].into(),
        host_ipc: false,
        host_pid: false,
        users: None,
        sysctls: [].into(),
        oom_score_adj: -998,
        runtime_handler: String::new(),
        log_directory: None,
        privileged: false,
    }
}

/// Ends at SIGTERM with 143; a shell that waits for a child would not hear it.
pub const POLITE: &str = "trap 'exit 143' TERM; while :; do sleep 0.05; done";
/// Does not end at SIGTERM.
pub const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.05; done";

/// A fake whose containers named `polite`, `stubborn` and `job` do what their scripts here do for real.
pub fn fake(image: &str) -> FakeRuntime {
    let fake = FakeRuntime::new().with_image(image);
    fake.behave("stubborn", Behaviour { ignores_sigterm: true, ..Behaviour::default() });
    fake.behave("job", Behaviour { exits_after: Some((Duration::from_millis(10), 3)), ..Behaviour::default() });
    fake.answer_exec("polite", Duration::ZERO, |_| Ok(ExecOutput { exit_code: 4, output: "out\n".into() }));
    fake
}

/// The next event, which must be this one.
async fn expect(events: &mut BoxStream<'static, Result<RuntimeEvent>>, id: &str, kind: RuntimeEventKind) {
    let next = tokio::time::timeout(PATIENCE, events.next()).await;
    let event = next.unwrap_or_else(|_| panic!("no {kind:?} of {id} came")).unwrap().unwrap();
    assert_eq!((event.id.as_str(), event.kind), (id, kind));
    assert!(event.pod_uid.starts_with("uid-behaviour"), "{event:?}");
}

fn exit(record: &ContainerRecord) -> (i64, &str) {
    match &record.state {
        ContainerState::Exited { exit_code, reason, started_at, finished_at, .. } => {
            assert!(finished_at >= started_at && started_at.is_some(), "{record:?}");
            (*exit_code, reason.as_str())
        }
        other => panic!("not exited: {other:?}"),
    }
}

/// Everything below, each with an owner of its own. `image` has a shell and `sleep` on its path.
pub async fn behaves_like_a_runtime(runtime: &dyn ContainerRuntime, image: &str) {
    assert!(!runtime.version().await.unwrap().version.is_empty());
    with_owner(runtime, |owner| async move { lives_and_dies(runtime, &owner, image).await }).await;
    with_owner(runtime, |owner| async move { ends_by_itself_or_by_force(runtime, &owner, image).await }).await;
    with_owner(runtime, |owner| async move { shares_names_with_the_dead(runtime, &owner, image).await }).await;
    with_owner(runtime, |owner| async move { makes_sandboxes(runtime, &owner, image).await }).await;
    with_owner(runtime, |owner| async move { misses_what_is_not_there(runtime, &owner).await }).await;
}

async fn lives_and_dies(runtime: &dyn ContainerRuntime, owner: &str, image: &str) {
    let config = placed(runtime, script(owner, "polite", image, POLITE)).await;
    let mut events = runtime.events(owner).await.unwrap();
    let id = runtime.create_container(&config).await.unwrap();
    let created = runtime.inspect(&id).await.unwrap();
    assert_eq!((&created.name, &created.state), (&config.name, &ContainerState::Created));
    assert_eq!((created.image.as_str(), &created.annotations), (image, &config.annotations));
    assert!(config.labels.iter().all(|(key, value)| created.labels.get(key) == Some(value)), "{created:?}");
    assert_eq!(containers(runtime, owner).await, [created]);
    assert_eq!(runtime.list("nobody").await.unwrap(), []);

    runtime.start(&id).await.unwrap();
    expect(&mut events, &id, RuntimeEventKind::Started).await;
    runtime.start(&id).await.unwrap();
    assert!(runtime.inspect(&id).await.unwrap().state.is_running());
    let command = ["sh", "-c", "echo out; exit 4"].map(str::to_owned);
    let output = runtime.exec(&id, &command, PATIENCE).await.unwrap();
    assert_eq!(output, ExecOutput { exit_code: 4, output: "out\n".into() });

    runtime.stop(&id, Duration::from_secs(30)).await.unwrap();
    expect(&mut events, &id, RuntimeEventKind::Exited).await;
    runtime.stop(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(exit(&runtime.inspect(&id).await.unwrap()), (143, "Error"));
    assert!(matches!(runtime.exec(&id, &command, PATIENCE).await, Err(RuntimeError::Conflict { .. })));

    runtime.remove(&id).await.unwrap();
    expect(&mut events, &id, RuntimeEventKind::Removed).await;
    runtime.remove(&id).await.unwrap();
    runtime.stop(&id, Duration::from_secs(1)).await.unwrap();
    assert!(matches!(runtime.inspect(&id).await, Err(RuntimeError::NotFound { .. })));
    assert!(matches!(runtime.start(&id).await, Err(RuntimeError::NotFound { .. })));
    assert!(matches!(runtime.log_tail(&id, 1).await, Err(RuntimeError::NotFound { .. })));
}

async fn ends_by_itself_or_by_force(runtime: &dyn ContainerRuntime, owner: &str, image: &str) {
    let job = placed(runtime, script(owner, "job", image, "exit 3")).await;
    let mut events = runtime.events(owner).await.unwrap();
    let job = runtime.create_container(&job).await.unwrap();
    runtime.start(&job).await.unwrap();
    expect(&mut events, &job, RuntimeEventKind::Started).await;
    expect(&mut events, &job, RuntimeEventKind::Exited).await;
    assert_eq!(exit(&runtime.inspect(&job).await.unwrap()), (3, "Error"));

    let stubborn = placed(runtime, script(owner, "stubborn", image, STUBBORN)).await;
    let stubborn = runtime.create_container(&stubborn).await.unwrap();
    runtime.start(&stubborn).await.unwrap();
    expect(&mut events, &stubborn, RuntimeEventKind::Started).await;
    runtime.stop(&stubborn, Duration::from_secs(1)).await.unwrap();
    assert_eq!(exit(&runtime.inspect(&stubborn).await.unwrap()), (137, "Error"));
}

async fn shares_names_with_the_dead(runtime: &dyn ContainerRuntime, owner: &str, image: &str) {
    let config = placed(runtime, script(owner, "polite", image, POLITE)).await;
    let dead = runtime.create_container(&config).await.unwrap();
    let running = runtime.create_container(&config).await.unwrap();
    assert!(matches!(runtime.inspect(&dead).await, Err(RuntimeError::NotFound { .. })), "it made way");
    runtime.start(&running).await.unwrap();
    let beside = runtime.create_container(&config).await.unwrap();
    let mut ids: Vec<String> = containers(runtime, owner).await.into_iter().map(|one| one.id).collect();
    let mut expected = vec![running, beside.clone()];
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);
    assert_eq!(runtime.inspect(&beside).await.unwrap().name, config.name);
}

async fn makes_sandboxes(runtime: &dyn ContainerRuntime, owner: &str, image: &str) {
    let mut of = script(owner, "polite", image, POLITE);
    let config = sandbox_of(&of, image);
    let sandbox = runtime.create_sandbox(&config).await.unwrap();
    let record = runtime.inspect(&sandbox).await.unwrap();
    assert!(record.is_sandbox);
    assert_eq!((&record.name, record.ip), (&config.name, None));
    (of.sandbox, of.sandbox_config) = (Some(sandbox), Some(Box::new(config)));
    let member = runtime.create_container(&of).await.unwrap();
    assert!(!runtime.inspect(&member).await.unwrap().is_sandbox);
}

/// Pulls from a registry that wants to know who asks.
///
/// # Panics
/// It gives the image to the wrong one, or not to the right one.
pub async fn pulls_as_who_it_is_told(runtime: &dyn ContainerRuntime) {
    let registry = Registry::serve("user", "pass:word").await;
    let credential = |password: &str| Some(Credential { username: "user".to_owned(), password: password.to_owned() });
    let pull = async |credential: Option<Credential>| {
        runtime.pull(&registry.image, credential.as_ref(), &|_, _| ()).await.map(|_| ())
    };
    for wrong in [None, credential("another")] {
        let refused = pull(wrong).await;
        assert!(matches!(refused, Err(RuntimeError::Pull { .. })), "{refused:?}");
    }
    pull(credential("pass:word")).await.unwrap();
    assert!(runtime.image(&registry.image).await.unwrap().is_some());
    runtime.remove_image(&registry.image).await.unwrap();
    let users = registry.users();
    assert!(users.contains(&"user:another".to_owned()), "{users:?}");
}

async fn misses_what_is_not_there(runtime: &dyn ContainerRuntime, owner: &str) {
    // No one listens on this port of this machine.
    const NOWHERE: &str = "127.0.0.1:1/kubeboot/none:1";
    assert_eq!(runtime.image(NOWHERE).await.unwrap(), None);
    runtime.remove_image(NOWHERE).await.unwrap();
    let pulled = runtime.pull(NOWHERE, None, &|_, _| ()).await;
    assert!(matches!(&pulled, Err(RuntimeError::Pull { image, .. }) if image == NOWHERE), "{pulled:?}");
    let nowhere = placed(runtime, script(owner, "polite", NOWHERE, POLITE)).await;
    let made = runtime.create_container(&nowhere).await;
    assert!(matches!(&made, Err(RuntimeError::NotFound { what }) if what == &format!("image {NOWHERE}")), "{made:?}");
}
