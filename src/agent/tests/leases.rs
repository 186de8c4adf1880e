//! What a worker reports of containers that may have left a leader lease, and how the next start waits for it.

use super::control::AgentView;
use super::runs::{LONGEST_HOLD, Run};
use super::*;
use crate::host::facts::hostname;

/// A component that elects a leader.
fn elector(flag: &str) -> StaticPod {
    read(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: m, namespace: kube-system}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: \
         main\n    image: x:1\n    command: [kube-controller-manager, --kubeconfig=/k/m.conf, {flag}]\n    volumeMounts: [{{name: k, \
         mountPath: /k}}]\n  volumes: [{{name: k, hostPath: {{path: /tmp}}}}]\n"
    ))
    .unwrap()
}

impl World {
    fn runs(&self) -> Arc<super::runs::Runs> {
        Arc::clone(&self.agent.as_ref().unwrap().view.runs)
    }

    /// The run that has ended, once the next container of its pod is only to be started.
    async fn ended(&self, what: &str, made: usize) -> (u64, Run) {
        self.fake.until(what, |fake| fake.calls_of("create_container").len() == made).await;
        self.settle().await;
        let open = self.runs().open();
        assert_eq!(open.len(), 1, "{what}: {open:?}");
        open.into_iter().next().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn however_a_component_ends_its_run_is_reported_and_the_next_one_waits_until_that_is_done_with() {
    type Ending = fn(&World, &str, &str);
    let endings: [(&str, Ending, &str); 4] = [
        ("it exits", |world, id, _| world.fake.exit_container(id, 1), "--v=1"),
        ("it is taken away", |world, id, _| world.fake.destroy(id), "--v=1"),
        ("its manifest is edited", |_, _, _| (), "--v=2"),
        ("it is restarted", |world, _, uid| assert!(world.agent.as_ref().unwrap().view.restart(uid)), "--v=1"),
    ];
    for (what, end, wanted) in endings {
        let mut world = World::new();
        world.start().await;
        let first = elector("--v=1");
        world.want(std::slice::from_ref(&first)).await;
        let id = world.healthy("m").await.containers[0].id.clone().unwrap();
        end(&world, &id, &first.uid);
        world.want(&[elector(wanted)]).await;
        let (number, run) = world.ended(what, 2).await;
        assert_eq!((run.uid, run.host, run.container.as_str()), (first.uid, hostname(), "main"), "{what}");
        assert_eq!(run.election.kubeconfig, Path::new("/tmp/m.conf"), "{what}");
        assert!(run.started <= run.ended, "{what}");
        assert_eq!(world.fake.calls_of("start").len(), 1, "{what}: it waits");
        let done = Instant::now();
        world.runs().done(number);
        let again = |fake: &FakeRuntime| fake.calls_of("start").len() == 2;
        world.fake.until(what, again).await;
        assert_eq!(done.elapsed(), Duration::ZERO, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_is_held_back_for_a_second_at_most_and_no_other_pods() {
    let mut world = World::new();
    world.start().await;
    world.want(&[elector("--v=1"), elector_without(), pod("b", "")]).await;
    let mut ids = HashMap::new();
    for name in ["m", "n", "b"] {
        ids.insert(name, world.healthy(name).await.containers[0].id.clone().unwrap());
    }
    let begun = Instant::now();
    let mut took = HashMap::new();
    for name in ["n", "b", "m"] {
        world.fake.exit_container(&ids[name], 1);
        world.until(name, |r| find(r, name).is_some_and(|pod| pod.containers[0].restarts == 1 && pod.healthy)).await;
        took.insert(name, begun.elapsed());
    }
    assert!(took["b"] < LONGEST_HOLD && took["n"] < LONGEST_HOLD, "{took:?}");
    assert!(took["m"] >= LONGEST_HOLD && took["m"] < 2 * LONGEST_HOLD, "{took:?}");
}

/// One that elects none.
fn elector_without() -> StaticPod {
    let mut pod = elector("--leader-elect=false");
    pod.key.name = "n-node1".into();
    pod.uid = "n".into();
    pod.metadata.name = Some("n-node1".into());
    pod
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_no_agent_was_there_is_reported_by_the_next_one() {
    let mut world = World::new();
    world.start().await;
    world.want(&[elector("--v=1")]).await;
    let id = world.healthy("m").await.containers[0].id.clone().unwrap();
    world.kill().await;
    world.fake.exit_container(&id, 1);
    world.start().await;
    world.want(&[elector("--v=1")]).await;
    let (_, run) = world.ended("it is restarted", 2).await;
    assert!(run.started <= run.ended);
}
