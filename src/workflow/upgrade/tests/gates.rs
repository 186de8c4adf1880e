//! Each gate missed once, and those that cannot be checked.

use super::fake_etcd::{CLAIMS, SLOW};
use super::*;
use crate::event::Event;
use crate::host::facts::hostname;
use crate::testing::machine::Bench as Recorder;
use crate::workflow::upgrade::gates::SETTLING;
use crate::workflow::upgrade::plan::Target;

const MANAGER: &str = "https://127.0.0.1:10257";
const SCHEDULER: &str = "https://127.0.0.1:10259";

/// A manifest as a real one is, as far as the gates read it.
fn real(component: &'static str, image: &str) -> Target {
    let port = match component {
        "kube-controller-manager" => "10257",
        _ => "probe-port",
    };
    let conf = "/etc/kubernetes/component.conf";
    let content = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {component}, namespace: kube-system}}\nspec:\n  containers:\n  - name: \
         {component}\n    image: {image}\n    command: [{component}, --kubeconfig={conf}]\n    ports: [{{name: probe-port, \
         containerPort: 10259}}]\n    livenessProbe: {{httpGet: {{host: 127.0.0.1, path: /healthz, port: {port}, scheme: \
         HTTPS}}}}\n    volumeMounts: [{{name: kubeconfig, mountPath: {conf}}}]\n  volumes: [{{name: kubeconfig, hostPath: \
         {{path: {conf}}}}}]\n"
    );
    Target { content: content.into_bytes(), ..target(component, image) }
}

/// A lease that was renewed long after every process of these tests began.
fn leads(bench: &Bench, component: &str, holder: &str) {
    let value = json!({"metadata": {"name": component, "namespace": "kube-system"}, "spec": {"holderIdentity": holder,
        "renewTime": "2026-11-30T00:00:00.000000Z"}});
    let key = Key { kind: "Lease".into(), namespace: Some("kube-system".into()), name: component.into() };
    bench.shelf.objects.lock().unwrap().insert(key, value);
}

/// What the component at this address is.
fn says(bench: &Bench, address: &str, version: &'static str) {
    bench.shelf.versions.lock().unwrap().insert(address.to_owned(), version);
}

/// A machine on which everything but etcd can be upgraded to v2.0.0, past every gate.
fn bench() -> Bench {
    let bench = Bench::new();
    *bench.shelf.versions.lock().unwrap() =
        [("", "v2.0.0"), (MANAGER, "v2.0.0+k3s1"), (SCHEDULER, "v2.0.0")].map(|(at, is)| (at.to_owned(), is)).into();
    for component in ["kube-controller-manager", "kube-scheduler"] {
        leads(&bench, component, &format!("{}_1", hostname()));
    }
    bench
}

fn steps_to(bench: &Bench, images: &[(&'static str, &str)]) -> Vec<Step> {
    let tree = bench.tree();
    let targets: Vec<_> = images.iter().map(|(component, image)| real(component, image)).collect();
    plan(|path| current(&tree, path), &targets).unwrap()
}

const ALL: [(&str, &str); 3] =
    [("kube-apiserver", "r/x:v2.0.0"), ("kube-controller-manager", "r/x:v2.0.0"), ("kube-scheduler", "r/x:v2.0.0")];

#[tokio::test(start_paused = true)]
async fn what_does_what_it_is_there_for_passes_and_leaves_nothing_behind() {
    let bench = bench();
    let objects = bench.shelf.values();
    let begun = tokio::time::Instant::now();
    let outcome = bench.apply(&steps_to(&bench, &ALL), None).await.unwrap();
    assert!(matches!(&outcome, Outcome::Upgraded { replaced } if replaced.len() == 3), "{outcome:?}");
    assert_eq!(begun.elapsed().as_secs(), SETTLING.as_secs(), "no longer than it takes to settle");
    assert_eq!(bench.shelf.values(), objects);
    assert!(Journal::read(&bench.tree()).unwrap().unwrap().api_answered);
}

#[tokio::test(start_paused = true)]
async fn whichever_gate_is_missed_the_old_ones_come_back() {
    type Spoil = fn(&Bench);
    let rows: &[(&str, &str, Spoil, &str)] = &[
        ("version", "kube-apiserver", |bench| says(bench, "", "v1.0.0"), "it is v1.0.0, not v2.0.0"),
        ("version", "kube-controller-manager", |bench| says(bench, MANAGER, "v2.0.1"), "it is v2.0.1, not v2.0.0"),
        ("version", "kube-scheduler", |bench| says(bench, SCHEDULER, "odd"), "it is odd, not v2.0.0"),
        (
            "write",
            "kube-apiserver",
            |bench| bench.shelf.forgets.store(true, Ordering::SeqCst),
            "the ConfigMap kube-system/kubeboot-upgrade-check is not read as it was written",
        ),
        (
            "leader",
            "kube-controller-manager",
            |bench| leads(bench, "kube-controller-manager", ""),
            "no one holds the lease",
        ),
        (
            "leader",
            "kube-scheduler",
            |bench| leads(bench, "kube-scheduler", "elsewhere_1"),
            "elsewhere_1 has not renewed the lease",
        ),
    ];
    for (gate, component, spoil, why) in rows {
        let bench = bench();
        spoil(&bench);
        let outcome = bench.apply(&steps_to(&bench, &ALL), None).await.unwrap();
        let Outcome::RolledBack { cause, .. } = &outcome else { panic!("{gate} {component}: {outcome:?}") };
        let text = cause.to_string();
        assert!(
            text.starts_with(&format!("{component} is healthy, but not past the check `{gate}` within ")),
            "{text}"
        );
        assert!(text.ends_with(why), "{text}");
        assert_eq!(outcome.exit_code(), 2);
        assert_eq!(bench.manifests(), all("r/x:v1"), "{gate} {component}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_etcd_of_another_minor_version_than_its_tag_says_goes_back() {
    let bench = super::etcd::bench("r/etcd:3.5.16", "r/x:v1");
    crate::host::fs::write_file(&bench.root.path().join(CLAIMS), b"3.5.16", 0o600).unwrap();
    let outcome = bench.apply(&steps_to(&bench, &[("etcd", "r/etcd:3.6.8-0")]), None).await.unwrap();
    let Outcome::RolledBack { cause, .. } = &outcome else { panic!("{outcome:?}") };
    let text = cause.to_string();
    assert_eq!(text, "etcd is healthy, but not past the check `version` within 10 s: it is etcd 3.5.16, not 3.6");
}

#[tokio::test(start_paused = true)]
async fn an_etcd_whose_cluster_does_not_come_along_goes_back() {
    let bench = super::etcd::bench("r/etcd:3.6.8-0", "r/x:v1");
    let steps = steps_to(&bench, &[("etcd", "r/etcd:3.7.1-0")]);
    crate::host::fs::write_file(&bench.root.path().join(SLOW), b"", 0o600).unwrap();
    let outcome = bench.apply(&steps, None).await.unwrap();
    let Outcome::RolledBack { cause, .. } = &outcome else { panic!("{outcome:?}") };
    let text = cause.to_string();
    assert!(text.ends_with("the check `format` within 20 s: the cluster's version is 3.6, not 3.7"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_crashes_after_it_has_become_healthy_goes_back() {
    let bench = bench();
    let images = [("kube-apiserver", "r/x:v2.0.0"), ("kube-scheduler", "r/x-later:v2.0.0")];
    let outcome = bench.apply(&steps_to(&bench, &images), None).await.unwrap();
    let Outcome::RolledBack { cause, .. } = &outcome else { panic!("{outcome:?}") };
    let text = cause.to_string();
    assert_eq!(text, "kube-scheduler is healthy, but not past the check `settled` within 1 s: it was restarted");
    assert_eq!(bench.manifests(), all("r/x:v1"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_checked_is_said_and_keeps_no_upgrade_away() {
    // An image whose tag is no version; components that show nothing; an API server that did not answer before either.
    for (mine, silent, expected) in [
        (true, false, "the tag of r/x:mine is no version"),
        (false, false, "kube-scheduler: the check `version` was left out: refused"),
        (false, true, "the API server did not answer the administrator before the upgrade either"),
    ] {
        let bench = bench();
        if !mine {
            bench.shelf.versions.lock().unwrap().remove(SCHEDULER);
        }
        bench.shelf.silent.store(silent, Ordering::SeqCst);
        let image = if mine { "r/x:mine" } else { "r/x:v2.0.0" };
        let recorder = Recorder::new();
        let bench = Bench { reporter: recorder.world.clone(), ..bench };
        let outcome = bench.apply(&steps_to(&bench, &[("kube-scheduler", image)]), None).await.unwrap();
        assert!(matches!(outcome, Outcome::Upgraded { .. }), "{outcome:?}");
        let notes: Vec<String> = recorder
            .world
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Note { text, .. } => Some(text),
                _ => None,
            })
            .collect();
        assert!(notes.iter().any(|note| note.contains(expected)), "{notes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_checks_what_the_one_before_has_replaced() {
    for (version, expected) in [("v2.0.0", 0), ("v1.0.0", 2)] {
        let bench = bench();
        let mut tree = bench.tree();
        let backup = PathBuf::from("/etc/kubernetes/tmp/kubeadm-backup-manifests-x");
        for (component, image) in ALL {
            tree.write(&backup.join(format!("{component}.yaml")), &manifest(component, "r/x:v1"), 0o600).unwrap();
            let new = real(component, image);
            tree.write(&new.file, &new.content, 0o600).unwrap();
        }
        let mut journal = Journal::new("v2", "kubeboot upgrade apply v2", backup);
        journal.api_answered = true;
        journal.write(&mut tree).unwrap();
        says(&bench, SCHEDULER, version);
        let outcome = bench.apply(&steps_to(&bench, &ALL), None).await.unwrap();
        assert_eq!(outcome.exit_code(), expected, "{outcome:?}");
    }
}
