//! Bad input: one clear error, and nothing written.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::machine::*;

/// What is wrong, the flags that make it so, and what the error must say.
const WRONG_FLAGS: &[(&str, &[&str], &[&str])] = &[
    ("version", &["--kubernetes-version", "v1"], &["v1", "--kubernetes-version"]),
    ("network", &["--service-cidr", "10.96.0.0/40"], &["10.96.0.0/40"]),
    ("name", &["--node-name", "No_Name"], &["No_Name", "DNS"]),
    ("port", &["--apiserver-bind-port", "70000"], &["70000", "65535"]),
    ("domain", &["--service-dns-domain", "a..b"], &["a..b"]),
    ("phase", &["--skip-phases", "cert"], &["cert", "certs"]),
    ("patches", &["--patches", "/nonexistent"], &["/nonexistent"]),
];

fn write(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    create(path.as_ref(), text);
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

pub fn every_wrong_value_is_named_and_nothing_is_written() {
    ready();
    let before = Listing::take();
    for (what, flags, words) in WRONG_FLAGS {
        let mut args = vec!["init"];
        if *what != "version" {
            args.extend(["--kubernetes-version", VERSION]);
        }
        args.extend(*flags);
        let said = kubeboot(&args).code(1);
        for word in *words {
            assert!(said.contains(word), "{what}: {word:?} not in\n{said}");
        }
    }
    let config = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.20.2\nnetworkin: {}\n\
                  certificateValidityPeriod: 10 days\n";
    let (_dir, path) = write("cluster.yaml", config);
    let said = kubeboot(&["init", "--config", &path]).code(1);
    assert!(said.contains("cluster.yaml:4") && said.contains("networkin"), "file, line and field in\n{said}");
    assert!(said.contains("certificateValidityPeriod"), "both problems at once in\n{said}");
    assert_eq!(before.diff(&Listing::take()), Vec::<String>::new());
}

pub fn what_the_machine_does_not_allow_is_found_out_before_the_first_write() {
    ready();
    let before = Listing::take();
    let init = |more: &[&str]| {
        let mut args = vec!["init", "--kubernetes-version", VERSION];
        args.extend(more);
        kubeboot(&args)
    };
    let listener = TcpListener::bind("0.0.0.0:6443").unwrap();
    let said = init(&[]).code(1);
    assert!(
        said.contains("Port-6443") && said.contains(&std::process::id().to_string()),
        "who has the port in\n{said}"
    );
    drop(listener);

    std::fs::create_dir_all("/etc/kubernetes/manifests").unwrap();
    std::fs::File::create("/etc/kubernetes/manifests/etcd.yaml").unwrap();
    let said = init(&[]).code(1);
    std::fs::remove_dir_all("/etc/kubernetes").unwrap();
    assert!(said.contains("FileAvailable--etc-kubernetes-manifests-etcd.yaml"), "{said}");

    let said = init(&["--image-repository", "registry.invalid/none"]).code(1);
    assert!(said.contains("registry.invalid/none/kube-apiserver"), "{said}");

    let mut unreachable = std::process::Command::new(program());
    unreachable.args(["init", "--kubernetes-version", VERSION]).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let said = Ran::from(unreachable.output().unwrap()).code(1);
    assert!(said.contains("/nonexistent/docker.sock") && said.contains("start"), "how to start it in\n{said}");

    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let binary = directory.path().join("kubeboot");
    std::fs::copy(program(), &binary).unwrap();
    let flags = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let args = [binary.to_str().unwrap(), "init", "--kubernetes-version", VERSION];
    let said = run("setpriv", &[flags.as_slice(), &args].concat()).code(1);
    assert!(said.contains("root"), "{said}");
    assert_eq!(before.diff(&Listing::take()), Vec::<String>::new());
}

pub fn a_full_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", root]).ok();
    let said = kubeboot(&["--rootfs", root, "init", "phase", "certs", "all", "--kubernetes-version", VERSION]);
    run("umount", &[root]).ok();
    let said = said.code(1);
    assert!(said.contains(root) && said.to_lowercase().contains("no space left"), "{said}");
}

pub fn a_component_that_crashes_ends_init_with_its_last_words() {
    ready();
    let before = Listing::take();
    let (_dir, path) = write(
        "cluster.yaml",
        &format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {VERSION}\nscheduler:\n  \
             extraArgs:\n  - {{name: no-such-flag, value: \"1\"}}\n"
        ),
    );
    let started = Instant::now();
    let said = kubeboot(&["init", "--config", &path]).code(1);
    // The scheduler is started when the API server is ready; from its first crash on, ten seconds.
    assert!(started.elapsed() < Duration::from_secs(60), "after {:?}", started.elapsed());
    assert!(said.contains("kube-scheduler") && said.contains("unknown flag: --no-such-flag"), "{said}");
    assert!(said.contains("exit code"), "{said}");
    kubeboot(&["reset", "--force"]).ok();
    assert_eq!(before.diff(&Listing::take()), Vec::<String>::new());
}

pub fn two_inits_at_once_and_an_interrupted_one() {
    ready();
    let mut first = std::process::Command::new(program())
        .args(["init", "--kubernetes-version", VERSION, "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let _plane = ControlPlane;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(first.stdout.take().unwrap()));
    assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("\"phaseStarted\",\"phase\":\"kubelet-start\"")));
    let said = kubeboot(&["init", "--kubernetes-version", VERSION]).code(1);
    assert!(said.contains(&first.id().to_string()), "the other's pid in\n{said}");
    signal(first.id() as i32, "INT");
    let _ = lines.map_while(Result::ok).count();
    let stderr = rest(first.stderr.take().unwrap());
    assert_eq!(first.wait().unwrap().code(), Some(1), "{stderr}");
    assert!(stderr.contains("again") && stderr.contains("kubeboot reset"), "how to go on in\n{stderr}");
    kubeboot(&["init", "--kubernetes-version", VERSION]).ok();
    healthy(Duration::from_secs(30));
}
