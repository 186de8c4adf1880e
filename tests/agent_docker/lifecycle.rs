//! How pods begin and end: hooks, sidecars, rules and deadlines. Containers write what they do into a file of the test's.

use super::*;

/// A process that notes the stop signal before it follows it.
fn noting(name: &str) -> String {
    format!("trap 'echo {name} >> /out/log; exit 0' TERM; while :; do sleep 1000 & wait $!; done")
}

/// One container's part of a manifest.
fn container(name: &str, script: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    image: {IMAGE}\n    command: [sh, -c, {script:?}]\n    \
         volumeMounts: [{{name: out, mountPath: /out}}]\n{more}"
    )
}

/// A pod whose containers have the test's directory at /out.
fn pod_with(machine: &Machine, spec: &str, init: &str, containers: &str) -> String {
    let out = machine.path("out");
    std::fs::create_dir_all(&out).unwrap();
    let init = if init.is_empty() { String::new() } else { format!("  initContainers:\n{init}") };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n{spec}  volumes: [{{name: out, hostPath: {{path: \
         {}}}}}]\n{init}  containers:\n{containers}",
        out.display()
    )
}

fn said(machine: &Machine) -> Vec<String> {
    let log = std::fs::read_to_string(machine.path("out/log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_precede_the_signal_and_sidecars_end_last_also_in_a_pod_whose_manifest_went_unseen() {
    for unseen in [false, true] {
        let machine = Machine::new();
        let agent = start(&machine);
        let sidecar = |name: &str| container(name, &noting(name), "    restartPolicy: Always\n");
        let hook = "    lifecycle: {preStop: {exec: {command: [sh, -c, 'sleep 1; echo hook >> /out/log']}}}\n";
        let spec = "  terminationGracePeriodSeconds: 20\n";
        let init = sidecar("one") + &sidecar("two");
        machine.write("web.yaml", pod_with(&machine, spec, &init, &container("main", &noting("main"), hook)));
        machine.healthy("web").await;
        let agent = if unseen {
            agent.stop().await;
            machine.delete("web.yaml");
            start(&machine)
        } else {
            machine.delete("web.yaml");
            agent
        };
        machine.until("it is gone", |r| r.agent.synced && r.pods.is_empty()).await;
        assert_eq!(said(&machine), ["hook", "main", "two", "one"], "unseen: {unseen}");
        assert!(machine.all().await.is_empty());
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_start_hook_holds_the_next_container_back_and_one_that_fails_restarts_its_own() {
    let machine = Machine::new();
    let agent = start(&machine);
    let hook = "    lifecycle: {postStart: {exec: {command: [sh, -c, 'sleep 1; echo hook >> /out/log; test -e /out/well || \
                { touch /out/well; exit 7; }']}}}\n";
    let second = container("second", &format!("echo second >> /out/log; {FOREVER}"), "");
    let spec = "  terminationGracePeriodSeconds: 3\n";
    machine.write("web.yaml", pod_with(&machine, spec, "", &(container("main", FOREVER, hook) + &second)));
    let report =
        machine.until("both run", |r| pod(r, "web").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    let main = pod(&report, "web").unwrap().containers[0].clone();
    let ended = main.last_termination.unwrap();
    assert!(ended.message.contains("postStart hook failed") && ended.message.contains("code 7"), "{ended:?}");
    let said = said(&machine);
    assert_eq!(said[0], "hook", "{said:?}");
    assert_eq!(said.iter().filter(|line| *line == "hook").count(), 2, "{said:?}");
    assert_eq!(said.iter().filter(|line| *line == "second").count(), 1, "{said:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_restarts_all_containers_from_the_first_in_the_same_sandbox() {
    let machine = Machine::new();
    let agent = start(&machine);
    let init = container("first", "echo first >> /out/log", "");
    // Only when the other one runs, or it would have nothing to restart.
    let once = format!(
        "test -e /out/again || {{ until test -e /out/side; do sleep 0.05; done; touch /out/again; exit 42; }}; {FOREVER}"
    );
    let rule = "    restartPolicy: Never\n    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, \
                values: [42]}}]\n";
    let side = container("side", &format!("touch /out/side; {FOREVER}"), "");
    let spec = "  terminationGracePeriodSeconds: 3\n";
    machine.write("web.yaml", pod_with(&machine, spec, &init, &(container("main", &once, rule) + &side)));
    let again = |p: &PodReport| p.healthy && p.containers.iter().all(|one| one.restarts == 1);
    machine.until("all run again", |r| pod(r, "web").is_some_and(again)).await;
    assert_eq!(said(&machine), ["first", "first"]);
    let sandboxes: Vec<_> = machine.all().await.into_iter().filter(|one| one.is_sandbox).collect();
    assert_eq!(sandboxes.iter().map(|one| one.name.attempt).collect::<Vec<_>>(), [0]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_across_a_restart_of_the_agent() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("web.yaml", pod_with(&machine, "  activeDeadlineSeconds: 6\n", "", &container("main", FOREVER, "")));
    let before = machine.healthy("web").await;
    agent.stop().await;
    let agent = start(&machine);
    let report = machine.until("it is over", |r| pod(r, "web").is_some_and(|p| p.phase == Phase::Failed)).await;
    let over = pod(&report, "web").unwrap();
    assert_eq!((over.uid.as_str(), over.containers[0].restarts), (before.uid.as_str(), 0));
    assert!(over.message.as_ref().unwrap().starts_with("DeadlineExceeded"), "{over:?}");
    let ended = async || machine.all().await.iter().all(|one| !one.state.is_running());
    eventually("its containers have ended", LIMIT, ended).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_grace_has_two_seconds_and_comes_back_counted() {
    let machine = Machine::new();
    let agent = start(&machine);
    let deaf = container("main", "trap '' TERM; while :; do sleep 1000 & wait $!; done", "");
    let text = pod_with(&machine, "  hostNetwork: true\n  terminationGracePeriodSeconds: 0\n", "", &deaf);
    machine.write("web.yaml", &text);
    let first = machine.healthy("web").await;
    let deleted = std::time::Instant::now();
    machine.delete("web.yaml");
    machine.until("it is gone", |r| r.pods.is_empty()).await;
    assert!(deleted.elapsed() >= Duration::from_secs(2), "{:?}", deleted.elapsed());
    machine.write("web.yaml", &text);
    let again = machine.healthy("web").await;
    assert_eq!((again.uid, again.containers[0].restarts), (first.uid, 1));
    agent.stop().await;
}

/// A process in a cgroup below a pod's, as a daemon leaves it that was killed while it started a container.
fn forgotten_process(uid: &str) -> (std::process::Child, Vec<PathBuf>) {
    let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let mut made = Vec::new();
    for mount in ["", "cpu", "memory", "pids", "freezer"].map(|name| Path::new("/sys/fs/cgroup").join(name)) {
        let pod = mount.join("kubepods/besteffort").join(format!("pod{uid}"));
        if pod.join("cgroup.procs").exists() {
            let group = pod.join("forgotten");
            std::fs::create_dir(&group).unwrap();
            let mut procs = std::fs::File::options().write(true).open(group.join("cgroup.procs")).unwrap();
            std::io::Write::write_all(&mut procs, child.id().to_string().as_bytes()).unwrap();
            made.push(pod);
        }
    }
    assert!(!made.is_empty(), "the pod has a cgroup");
    // Frozen, as runtimes do before they end what is in one: frozen processes do not die.
    for (file, word) in [("freezer/kubepods", "FROZEN"), ("kubepods", "1")] {
        let name = if word == "1" { "cgroup.freeze" } else { "freezer.state" };
        let file = Path::new("/sys/fs/cgroup").join(file).join(format!("besteffort/pod{uid}/forgotten/{name}"));
        if let Ok(mut file) = std::fs::File::options().write(true).open(file) {
            std::io::Write::write_all(&mut file, word.as_bytes()).unwrap();
        }
    }
    (child, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_no_container_knows_of_ends_with_its_pod() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("web.yaml", manifest("web", HOST, ""));
    let before = machine.healthy("web").await;
    let (mut forgotten, cgroups) = forgotten_process(&before.uid);
    machine.delete("web.yaml");
    machine.until("it is gone", |r| r.agent.synced && r.pods.is_empty()).await;
    let status = forgotten.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let left: Vec<_> = cgroups.iter().filter(|dir| dir.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!machine.path("root/pods").join(&before.uid).exists());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_no_container_knows_of_ends_before_its_pods_container_starts_again() {
    let machine = Machine::new();
    let agent = start(&machine);
    machine.write("web.yaml", manifest("web", HOST, ""));
    machine.write("other.yaml", manifest("other", HOST, ""));
    let (before, other) = (machine.healthy("web").await, machine.healthy("other").await);
    let (mut forgotten, _) = forgotten_process(&before.uid);
    machine.kill_container(&id(&before));
    machine.until("it runs again", |r| pod(r, "web").is_some_and(|p| p.healthy && p.containers[0].restarts == 1)).await;
    let status = forgotten.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let others = machine.healthy("other").await;
    assert_eq!((id(&others), others.containers[0].restarts), (id(&other), 0));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_is_made_before_the_one_it_replaces_ends_and_is_started_after() {
    let machine = Machine::new();
    let agent = start(&machine);
    let text = |version: u32| {
        let asked = "  name: web\n  annotations: {kubeboot.dev/surge: 'true'}\n";
        let text = manifest("web", HOST, &format!("    env: [{{name: VERSION, value: '{version}'}}]\n"));
        text.replacen("  name: web\n", asked, 1).replace(FOREVER, STUBBORN)
    };
    machine.write("web.yaml", text(1));
    let old = machine.healthy("web").await;
    machine.write("web.yaml", text(2));
    // It does not heed its signal, so that there is time to look.
    let made = async || {
        let (old, all) = (id(&old), machine.containers().await);
        let goes_on = all.iter().any(|one| one.id == old && one.state.is_running());
        all.into_iter().find(|one| goes_on && one.state == ContainerState::Created).map(|one| one.id).ok_or("none")
    };
    let made = eventually("another one is made", LIMIT, made).await;
    agent.stop().await;
    let agent = start(&machine);
    let next = |r: &HealthReport| pod(r, "web").is_some_and(|pod| pod.healthy && pod.uid != old.uid);
    let report = machine.until("the new one is healthy", next).await;
    let new = pod(&report, "web").unwrap();
    assert_eq!((id(new), new.containers[0].restarts), (made, 0));
    eventually("it is alone", LIMIT, async || machine.all().await.len() == 1 + sandboxes(1, 0)).await;
    agent.stop().await;
}
