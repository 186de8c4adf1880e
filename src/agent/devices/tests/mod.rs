//! Plugins that work and plugins that fail, at real sockets, as in Kubernetes' node suite.

pub mod plugin;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::messages::{DevicePluginOptions, RegisterRequest};
use super::*;
use crate::agent::pod::tests::read;
use plugin::FakePlugin;

const DEV: &str = "test.device/some";
/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// The kubelet's side.
struct Bench {
    devices: Arc<Devices>,
    dir: PathBuf,
    end: CancellationToken,
    root: TempDir,
}

impl Bench {
    async fn start() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    async fn at(root: TempDir) -> Self {
        let end = CancellationToken::new();
        let devices = Arc::new(Devices::new(root.path(), end.clone(), TaskTracker::new()));
        devices.restore();
        let listener = listen(&devices).await.unwrap();
        tokio::spawn(serve(listener, Arc::clone(&devices), end.clone()));
        Self { dir: root.path().join("device-plugins"), devices, end, root }
    }

    /// Another agent on the same root directory.
    async fn restarted(self) -> Self {
        let Self { devices, end, root, .. } = self;
        end.cancel();
        devices.tasks.close();
        devices.tasks.wait().await;
        Self::at(root).await
    }

    /// Registers a plugin that works.
    async fn plug(&self, plugin: FakePlugin, endpoint: &str) -> Arc<FakePlugin> {
        let plugin = Arc::new(plugin);
        plugin.register(&self.dir, endpoint, DEV).await.unwrap();
        plugin
    }

    /// Waits until the Node has this much of the resource: capacity and allocatable.
    async fn until(&self, expected: Option<(usize, usize)>) {
        let mut changes = self.devices.changes();
        let mut last = None;
        let found = async {
            loop {
                last = self.devices.amounts().await.get(DEV).map(|one| (one.capacity, one.allocatable));
                if last == expected {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        if timeout(LIMIT, found).await.is_err() {
            panic!("{last:?} instead of {expected:?}");
        }
    }

    /// No plugin is listened to any more: none will be asked again.
    async fn none_is_watched(&self) {
        self.devices.tasks.close();
        timeout(LIMIT, self.devices.tasks.wait()).await.unwrap();
    }
}

/// A pod with containers that ask for so many devices: init containers, sidecars among them, then the others.
fn pod(name: &str, init: &[(&str, u32)], main: &[u32]) -> StaticPod {
    let limits = |count: u32| format!("resources: {{limits: {{{DEV}: {count}}}}}");
    let mut text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  initContainers:\n");
    for (index, (policy, count)) in init.iter().enumerate() {
        let policy = if policy.is_empty() { String::new() } else { format!(", restartPolicy: {policy}") };
        text += &format!("  - {{name: i{index}, image: 'x:1'{policy}, {}}}\n", limits(*count));
    }
    text += "  containers:\n";
    for (index, count) in main.iter().enumerate() {
        text += &format!("  - {{name: c{index}, image: 'x:1', {}}}\n", limits(*count));
    }
    read(&text).unwrap()
}

impl Bench {
    async fn given(&self, pod: &StaticPod) -> Result<Vec<String>, String> {
        self.devices.allocate(pod, None).await?;
        let ids = |container: &Container| {
            let all = self.devices.lock().state.all_of(&pod.uid, &container.name);
            let ids: Vec<String> = all.into_values().flatten().collect();
            format!("{} {}", container.name, ids.join(","))
        };
        Ok(pod.containers().map(|(_, container)| ids(container)).collect())
    }
}

#[tokio::test]
async fn a_plugin_whose_options_cannot_be_asked_is_not_used() {
    let bench = Bench::start().await;
    let plugin = Arc::new(FakePlugin::new(&["d"]));
    plugin.fail("GetDevicePluginOptions");
    let error = plugin.register(&bench.dir, "p.sock", DEV).await.unwrap_err();
    let words = "rpc error: code = Unknown desc = GetDevicePluginOptions failed";
    assert_eq!(error.message(), format!("failed to get device plugin options: {words}"));
    bench.none_is_watched().await;
    assert_eq!(plugin.calls(), ["GetDevicePluginOptions"]);
    bench.until(None).await;
}

#[tokio::test]
async fn a_device_that_is_unhealthy_is_capacity_and_not_allocatable_until_it_is_healthy_again() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["d"]), "p.sock").await;
    for is_healthy in [true, false, true] {
        plugin.set(&[("d", is_healthy)]);
        bench.until(Some((1, usize::from(is_healthy)))).await;
    }
}

#[tokio::test]
async fn a_pod_keeps_its_device_when_that_is_unhealthy_and_another_one_does_not_get_it() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["d"]), "p.sock").await;
    bench.until(Some((1, 1))).await;
    let one = pod("one", &[], &[1]);
    assert_eq!(bench.given(&one).await.unwrap(), ["c0 d"]);
    bench.until(Some((1, 1))).await;
    let other = pod("other", &[], &[1]);
    let why = bench.given(&other).await.unwrap_err();
    assert_eq!(why, format!("requested number of devices unavailable for {DEV}. Requested: 1, Available: 0"));
    plugin.set(&[("d", false)]);
    bench.until(Some((1, 0))).await;
    let container = &one.spec.containers[0];
    assert_eq!(bench.devices.grant(&one.uid, container).await.unwrap().devices[0].host_path, "/dev/host-d");
    let why = bench.given(&other).await.unwrap_err();
    assert_eq!(why, format!("no healthy devices present; cannot allocate unhealthy devices {DEV}"));
    // The first one has gone.
    plugin.set(&[("d", true)]);
    bench.until(Some((1, 1))).await;
    bench.devices.allocate(&other, Some(&[other.uid.clone()].into())).await.unwrap();
}

#[tokio::test]
async fn allocatable_follows_the_number_of_healthy_devices() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["0", "1", "2", "3"]), "p.sock").await;
    bench.until(Some((4, 4))).await;
    for bad in [&["3"][..], &[], &["1", "3"], &["1"], &[]] {
        let all = ["0", "1", "2", "3"].map(|id| (id, !bad.contains(&id)));
        plugin.set(&all);
        bench.until(Some((4, 4 - bad.len()))).await;
    }
}

#[tokio::test]
async fn a_plugin_that_cannot_list_has_none_and_is_not_asked_again() {
    let bench = Bench::start().await;
    let plugin = FakePlugin::new(&["d"]);
    plugin.fail("ListAndWatch");
    let plugin = bench.plug(plugin, "p.sock").await;
    bench.until(Some((0, 0))).await;
    bench.none_is_watched().await;
    assert_eq!(plugin.calls(), ["GetDevicePluginOptions", "ListAndWatch"]);
}

#[tokio::test]
async fn a_watch_that_fails_leaves_the_capacity_and_is_not_begun_again() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["0", "1"]), "p.sock").await;
    bench.until(Some((2, 2))).await;
    plugin.fail("ListAndWatch");
    bench.until(Some((2, 0))).await;
    bench.none_is_watched().await;
    assert_eq!(plugin.calls(), ["GetDevicePluginOptions", "ListAndWatch"]);
}

#[tokio::test]
async fn a_plugin_that_is_stopped_leaves_the_capacity_until_another_one_registers() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["0", "1"]), "p.sock").await;
    bench.until(Some((2, 2))).await;
    plugin.stop();
    bench.until(Some((2, 0))).await;
    bench.plug(FakePlugin::new(&["0"]), "q.sock").await;
    bench.until(Some((1, 1))).await;
}

#[tokio::test]
async fn a_plugin_that_registers_again_replaces_the_one_before_whose_end_is_no_news() {
    let bench = Bench::start().await;
    let before = bench.plug(FakePlugin::new(&["0", "1"]), "p.sock").await;
    bench.until(Some((2, 2))).await;
    bench.plug(FakePlugin::new(&["0", "1", "2"]), "q.sock").await;
    bench.until(Some((3, 3))).await;
    before.set(&[("0", true)]);
    before.stop();
    bench.given(&pod("one", &[], &[3])).await.unwrap();
    bench.until(Some((3, 3))).await;
    assert!(before.calls().iter().all(|call| !call.starts_with("Allocate")));
}

#[test]
fn a_resource_is_shown_for_five_minutes_after_its_plugin_and_then_as_nothing() {
    let (started, mut state) = (Instant::now(), State::default());
    state.connected(DEV, DevicePluginOptions::default());
    assert!(state.amounts().is_empty() && !state.manages(DEV), "nothing is known before the first list");
    state.listed(DEV, plugin::devices(&[("0", true), ("1", false)]));
    state.disconnected(DEV, started);
    let amounts = |state: &State| state.amounts().get(DEV).map(|one| (one.capacity, one.allocatable));
    for (after, expired, expected) in [(300, false, (2, 0)), (301, true, (0, 0)), (302, false, (0, 0))] {
        assert_eq!(state.expire(started + Duration::from_secs(after)), expired, "{after}");
        assert_eq!(amounts(&state), Some(expected), "{after}");
    }
    assert!(!state.manages(DEV));
    state.connected(DEV, DevicePluginOptions::default());
    assert_eq!(amounts(&state), Some((0, 0)));
    state.listed(DEV, plugin::devices(&[("0", true)]));
    assert_eq!((amounts(&state), state.expire(started + Duration::from_secs(900))), (Some((1, 1)), false));
}

#[tokio::test]
async fn what_does_not_register_as_it_should_is_refused_in_the_kubelets_words() {
    let bench = Bench::start().await;
    let asked = |version: &str, resource: &str| RegisterRequest {
        version: version.to_owned(),
        endpoint: "p.sock".to_owned(),
        resource_name: resource.to_owned(),
        options: None,
    };
    for (request, words) in [
        (
            asked("v1alpha1", DEV),
            r#"requested API version "v1alpha1" is not supported by kubelet. Supported version is ["v1beta1"]"#,
        ),
        (asked("v1beta1", "cpu"), r#"the ResourceName "cpu" is invalid"#),
        (asked("v1beta1", "kubernetes.io/x"), r#"the ResourceName "kubernetes.io/x" is invalid"#),
    ] {
        let error = plugin::register(&bench.dir, request).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (tonic::Code::Unknown, words));
    }
    let counted: u64 = bench.devices.registrations.all().into_iter().map(|(_, count)| count).sum();
    assert_eq!(counted, 3, "those that are refused too");
    assert!(bench.devices.is_idle());
}

#[tokio::test]
async fn sockets_that_are_left_go_with_the_start_and_other_files_stay() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("device-plugins");
    let bench = Bench::at(root).await;
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o750);
    let _left = std::os::unix::net::UnixListener::bind(dir.join("old.sock")).unwrap();
    crate::host::fs::write_file(&dir.join("notes"), b"x", 0o600).unwrap();
    let bench = bench.restarted().await;
    let mut names: Vec<_> =
        std::fs::read_dir(&bench.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["kubelet.sock", "notes"]);
}

#[tokio::test]
async fn what_init_containers_had_is_used_again_and_sidecars_keep_theirs() {
    let bench = Bench::start().await;
    bench.plug(FakePlugin::new(&["0", "1", "2"]), "p.sock").await;
    bench.until(Some((3, 3))).await;
    let one = pod("one", &[("", 1), ("Always", 1), ("", 2)], &[1, 1]);
    // The sidecar takes what the first one had; the others share what the last init container had.
    assert_eq!(bench.given(&one).await.unwrap(), ["i0 0", "i1 0", "i2 1,2", "c0 1", "c1 2"]);
    assert_eq!(bench.given(&one).await.unwrap().len(), 5, "it has them already");
    let why = bench.given(&pod("two", &[], &[1])).await.unwrap_err();
    assert!(why.ends_with("Requested: 1, Available: 0"), "{why}");
}

#[tokio::test]
async fn a_plugin_is_asked_what_it_prefers_and_before_a_start_where_it_wants_that() {
    let bench = Bench::start().await;
    let options = DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
    let plugin = bench.plug(FakePlugin::new(&["0", "1", "2"]).with(options), "p.sock").await;
    bench.until(Some((3, 3))).await;
    let one = pod("one", &[], &[2]);
    assert_eq!(bench.given(&one).await.unwrap(), ["c0 1,2"]);
    let grant = bench.devices.grant(&one.uid, &one.spec.containers[0]).await.unwrap();
    assert_eq!(grant.env, [("DEVICES".to_owned(), "1,2".to_owned())].into());
    assert_eq!((grant.mounts.len(), grant.cdi_devices), (1, vec!["vendor.com/dev=1-2".to_owned()]));
    let asked = ["GetPreferredAllocation 0 1 2", "Allocate 1 2", "PreStartContainer 1 2"];
    assert_eq!(plugin.calls()[2..], asked);
    assert_eq!(bench.devices.allocations.all()[0].1.count, 1);

    plugin.fail("PreStartContainer");
    let why = bench.devices.grant(&one.uid, &one.spec.containers[0]).await.unwrap_err();
    let words = "rpc error: code = Unknown desc = PreStartContainer failed";
    assert_eq!(why, format!("device plugin PreStartContainer rpc failed with err: {words}"));
    plugin.fail("GetPreferredAllocation");
    let why = bench.given(&pod("two", &[], &[1])).await.unwrap_err();
    assert!(why.starts_with("device plugin GetPreferredAllocation rpc failed with err: rpc error: "), "{why}");
}

#[tokio::test]
async fn devices_that_a_plugin_does_not_allocate_are_free_again() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["0"]), "p.sock").await;
    bench.until(Some((1, 1))).await;
    plugin.fail("Allocate");
    let why = bench.given(&pod("one", &[], &[1])).await.unwrap_err();
    assert_eq!(why, "rpc error: code = Unknown desc = Allocate failed");
    plugin.stop();
    bench.until(Some((1, 0))).await;
    bench.plug(FakePlugin::new(&["0"]), "q.sock").await;
    bench.until(Some((1, 1))).await;
    assert_eq!(bench.given(&pod("two", &[], &[1])).await.unwrap(), ["c0 0"]);
}

#[tokio::test]
async fn an_agent_that_is_restarted_knows_which_device_is_whose() {
    let bench = Bench::start().await;
    let plugin = bench.plug(FakePlugin::new(&["0", "1"]), "p.sock").await;
    bench.until(Some((2, 2))).await;
    let one = pod("one", &[], &[1]);
    bench.given(&one).await.unwrap();
    let before = bench.devices.grant(&one.uid, &one.spec.containers[0]).await.unwrap();
    plugin.stop();
    let bench = bench.restarted().await;
    // Until plugins have registered again there is nothing to give, and what was given is known.
    bench.until(Some((0, 0))).await;
    assert!(bench.devices.wants(&one));
    assert_eq!(bench.devices.grant(&one.uid, &one.spec.containers[0]).await.unwrap(), before);
    let why = bench.given(&one).await.unwrap_err();
    assert_eq!(why, format!("no healthy devices present; cannot allocate unhealthy devices {DEV}"));
    let bench = bench.restarted().await;
    bench.plug(FakePlugin::new(&["0", "1"]), "p.sock").await;
    bench.until(Some((2, 2))).await;
    assert_eq!(bench.given(&pod("two", &[], &[1])).await.unwrap(), ["c0 1"], "the other one");
}
