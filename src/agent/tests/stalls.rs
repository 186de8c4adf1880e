//! What hangs on the machine, and what goes on all the same. On two threads, as the agent has them, and by the real clock.

use super::cgroups::Cgroups;
use super::cgroups::tests::Stuck;
use super::*;

/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(40);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Lets everything go on that hangs, so that a test that fails ends.
struct Free(Arc<Stuck>);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.free();
    }
}

/// A world with two pods that are gone, whose slices systemd does not stop.
async fn stuck() -> (World, Free) {
    let mut world = World::new();
    let stuck = Stuck::new(&world.root.path().join("cgroup"));
    world.fake.set_cgroup_driver(Some(CgroupDriver::Systemd));
    for uid in ["gone-1", "gone-2"] {
        volumes::claim(&world.root.path().join("root"), uid).unwrap();
        stuck.add(uid);
    }
    let machine = Arc::clone(&stuck);
    world.start_with(|context| context.cgroups = Cgroups::on(machine, &context.options)).await;
    (world, Free(stuck))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remains_that_do_not_go_hold_up_no_pods_and_no_probes() {
    let (mut world, free) = stuck().await;
    let probed = pod("a", "readinessProbe: {httpGet: {path: /a, port: 1}, periodSeconds: 1, failureThreshold: 1}");
    // Its image is pulled and pulled.
    world.fake.registry_has("x:9", Duration::from_secs(3600));
    let mut pulled = pod("b", "");
    pulled.spec.containers[0].image = Some("x:9".into());
    world.want(&[probed.clone(), pulled.clone()]).await;
    soon("the probed pod is healthy", world.healthy("a")).await;
    free.0.until_called();
    world.answers.set("/a", false);
    soon("its probe fails", world.until("not ready", |report| find(report, "a").is_some_and(|pod| !pod.ready))).await;
    world.answers.set("/a", true);
    soon("its probe succeeds", world.healthy("a")).await;
    // Pods come and go meanwhile.
    world.want(&[probed.clone(), pulled, pod("c", "")]).await;
    soon("a new pod runs", world.healthy("c")).await;
    world.want(&[probed]).await;
    soon("it goes", world.until("gone", |report| find(report, "c").is_none())).await;
    free.0.free();
    let cleared = async {
        while !volumes::claimed(&world.root.path().join("root")).iter().all(|uid| !uid.starts_with("gone")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the remains go", cleared).await;
    world.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_remains_are_being_removed_waits_for_that_and_no_other_does() {
    let (mut world, free) = stuck().await;
    let mut again = pod("again", "");
    again.uid = "gone-1".into();
    world.want(&[]).await;
    let called = Arc::clone(&free.0);
    tokio::task::spawn_blocking(move || called.until_called()).await.unwrap();
    world.want(&[again.clone(), pod("other", "")]).await;
    soon("the other runs", world.healthy("other")).await;
    assert!(world.fake.find("again-node1", "main").is_none(), "its directory would be removed under it");
    free.0.free();
    soon("it runs", world.healthy("again")).await;
    assert!(volumes::claimed(&world.root.path().join("root")).contains("gone-1"));
    world.kill().await;
}
