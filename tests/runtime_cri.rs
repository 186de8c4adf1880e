//! The runtime against a real one that speaks CRI, at the socket that `KUBEBOOT_TEST_CRI` names.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kubeboot::runtime::cri::Cri;
use kubeboot::runtime::streaming::{StdStreams, Streamed};
use kubeboot::runtime::*;
use kubeboot::testing::real::cri::{import, socket};
use kubeboot::testing::real::image::{IMAGE, docker};
use kubeboot::testing::real::wait::{LIMIT, eventually};
use kubeboot::testing::runtime_behaviour::{
    POLITE, behaves_like_a_runtime, placed, pulls_as_who_it_is_told, script, with_owner,
};

/// The runtime, which has the image.
async fn cri() -> Option<Cri> {
    let socket = socket()?;
    let cri = Cri::new(&format!("unix://{socket}")).unwrap();
    cri.version().await.unwrap();
    if cri.image(IMAGE).await.unwrap().is_none() {
        docker().await;
        import(&socket, &[IMAGE]);
    }
    Some(cri)
}

/// Runs a container to its end.
async fn run(cri: &Cri, config: ContainerConfig) -> String {
    let config = placed(cri, config).await;
    let mut events = cri.events(&config.labels[labels::OWNER]).await.unwrap();
    let id = cri.create_container(&config).await.unwrap();
    cri.start(&id).await.unwrap();
    let end = RuntimeEvent { id: id.clone(), pod_uid: config.name.uid.clone(), kind: RuntimeEventKind::Exited };
    while events.next().await.unwrap().unwrap() != end {}
    id
}

/// What a script prints when it runs as this container, after `ready`.
async fn output_of(cri: &Cri, config: ContainerConfig) -> Vec<String> {
    let id = run(cri, config).await;
    let mut log = cri.log_tail(&id, 1000).await.unwrap();
    // stdout and stderr come in any order.
    log.remove(log.iter().position(|line| line == "ready").unwrap());
    log
}

async fn start(cri: &Cri, config: ContainerConfig) -> String {
    let id = cri.create_container(&placed(cri, config).await).await.unwrap();
    cri.start(&id).await.unwrap();
    id
}

#[tokio::test]
async fn a_cri_runtime_behaves_like_a_runtime() {
    let Some(cri) = cri().await else { return };
    behaves_like_a_runtime(&cri, IMAGE).await;
}

#[tokio::test]
async fn an_image_is_pulled_as_who_the_credentials_say() {
    let Some(cri) = cri().await else { return };
    pulls_as_who_it_is_told(&cri).await;
}

#[tokio::test]
async fn a_container_has_its_user_environment_mounts_and_rights() {
    let Some(cri) = cri().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir(path("ro")).unwrap();
    let mounts = [Mount {
        host_path: path("ro"),
        container_path: "/mnt/ro".into(),
        read_only: true,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }];
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let mut config = script(
                &owner,
                "web",
                IMAGE,
                "id -u; id -g; id -G; echo $A; pwd; cat /proc/self/status \
                | grep -e NoNewPrivs -e Seccomp: -e CapEff; grep -c /mnt/ro.*ro, /proc/mounts; stat -c %t:%T /proc/timer_list",
            );
            config.mounts = mounts.to_vec();
            config.env = vec![("A".into(), b"b c".to_vec())];
            config.working_dir = Some("/etc".into());
            config.security = SecurityConfig {
                user: Some(1234),
                group: Some(2345),
                supplemental_groups: vec![77],
                drop_capabilities: vec!["ALL".into()],
                read_only_root: true,
                no_new_privileges: true,
                seccomp: Seccomp::RuntimeDefault,
                ..SecurityConfig::default()
            };
            let output = output_of(cri, config).await.join("|").replace('\t', " ");
            assert_eq!(output, "1234|2345|2345 77|b c|/etc|CapEff: 0000000000000000|NoNewPrivs: 1|Seccomp: 2|1|1:3");
        }
    })
    .await;
}

#[tokio::test]
async fn a_variable_that_is_no_utf_8_is_taken_by_the_runtime() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let mut config = script(&owner, "web", IMAGE, r#"printf %s "$A" | od -An -tx1 | tr -d ' '"#);
            config.env = vec![("A".into(), b"a\xffb".to_vec())];
            // containerd keeps what a container is in JSON, which makes U+FFFD of the byte.
            let output = output_of(cri, config).await;
            assert!(["61ff62", "61efbfbd62"].contains(&output[0].as_str()), "{output:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_critical_containers_negative_adjustment_keeps_nobody_from_starting() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let mut config = script(&owner, "web", IMAGE, "cat /proc/self/oom_score_adj");
            config.resources.oom_score_adj = -997;
            let output = output_of(cri, config).await;
            assert!(["-997", "0"].contains(&output[0].as_str()), "{output:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_that_is_not_there_ends_with_126_or_127_and_one_that_hangs_at_the_limit() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let id = start(cri, script(&owner, "polite", IMAGE, POLITE)).await;
            let missing = cri.exec(&id, &["/nowhere".into()], Duration::from_secs(30)).await.unwrap();
            assert!([126, 127].contains(&missing.exit_code) && missing.output.contains("/nowhere"), "{missing:?}");
            let begin = Instant::now();
            let hangs = cri.exec(&id, &["sleep".into(), "4748".into()], Duration::from_millis(300)).await;
            assert!(matches!(hangs, Err(RuntimeError::Timeout { .. })), "{hangs:?}");
            assert!(begin.elapsed() < Duration::from_secs(10));
            let flood = ["sh".to_owned(), "-c".to_owned(), "seq 1 100000".to_owned()];
            let flood = cri.exec(&id, &flood, Duration::from_secs(30)).await.unwrap();
            assert_eq!((flood.exit_code, flood.output.len()), (0, 10 * 1024));
            let search = "for one in /proc/[0-9]*; do grep -q 474[8] $one/cmdline && echo $one; done; true";
            let search = ["sh", "-c", search].map(str::to_owned);
            let is_gone = async || cri.exec(&id, &search, Duration::from_secs(30)).await.unwrap().output.is_empty();
            eventually("the command is ended", LIMIT, is_gone).await;
            assert!(cri.inspect(&id).await.unwrap().state.is_running());
        }
    })
    .await;
}

#[tokio::test]
async fn the_log_is_a_file_below_the_pods_and_goes_with_its_container() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let id = run(cri, script(&owner, "job", IMAGE, "seq 1 500; echo error >&2")).await;
            let lines = cri.log_tail(&id, 1000).await.unwrap();
            assert_eq!(lines.len(), 502);
            assert!(lines.iter().any(|line| line == "error"), "{lines:?}");
            assert_eq!(cri.log_tail(&id, 3).await.unwrap(), lines[499..]);
            let file = cri.log_path(&id).await.unwrap().unwrap();
            assert!(file.ends_with("job/0.log") && Path::new(&file).exists(), "{file}");
            let stamped = LogOptions { timestamps: true, tail: Some(1), ..LogOptions::default() };
            let stamped: Vec<_> = cri.logs(&id, &stamped).await.unwrap().collect().await;
            let text = String::from_utf8(stamped[0].as_ref().unwrap().to_vec()).unwrap();
            assert!(text.split(' ').next().unwrap().parse::<jiff::Timestamp>().is_ok(), "{text}");
            cri.remove(&id).await.unwrap();
            assert!(!Path::new(&file).exists());
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_is_followed_into_its_next_file_until_the_container_ends() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let id = start(cri, script(&owner, "web", IMAGE, "cat; echo end")).await;
            let id2 = start(
                cri,
                script(
                    &owner,
                    "talks",
                    IMAGE,
                    "trap 'echo last; exit 0' TERM; n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done",
                ),
            )
            .await;
            cri.stop(&id, Duration::ZERO).await.unwrap();
            let options = LogOptions { follow: true, ..LogOptions::default() };
            let mut log = cri.logs(&id2, &options).await.unwrap();
            let mut text = Vec::new();
            let seen = |text: &[u8]| String::from_utf8_lossy(text).lines().count();
            while seen(&text) < 5 {
                text.extend(log.next().await.unwrap().unwrap());
            }
            let file = cri.log_path(&id2).await.unwrap().unwrap();
            std::fs::rename(&file, format!("{file}.20260102-030405")).unwrap();
            assert!(cri.reopen_log(&id2).await.unwrap());
            let before = seen(&text);
            while seen(&text) < before + 10 {
                text.extend(log.next().await.unwrap().unwrap());
            }
            cri.stop(&id2, Duration::from_secs(10)).await.unwrap();
            while let Some(more) = log.next().await {
                text.extend(more.unwrap());
            }
            let lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
            let count = lines.len() - 2;
            let expected: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            assert_eq!(lines[1..=count], expected, "nothing is lost or said twice");
            assert_eq!((lines[0].as_str(), lines[count + 1].as_str()), ("ready", "last"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_could_not_be_run() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let mut config = script(&owner, "web", IMAGE, "");
            config.command = vec!["/nowhere".into()];
            let id = cri.create_container(&placed(cri, config).await).await.unwrap();
            let error = cri.start(&id).await.unwrap_err();
            assert!(matches!(&error, RuntimeError::Refused { message, .. } if message.contains("/nowhere")), "{error}");
            let state = cri.inspect(&id).await.unwrap().state;
            assert!(
                matches!(&state, ContainerState::Exited { reason, message, .. }
                    if reason == "StartError" && message.contains("/nowhere")),
                "{state:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn commands_and_containers_are_served_at_a_url_of_the_runtimes() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let id = start(cri, script(&owner, "polite", IMAGE, POLITE)).await;
            let wanted = StdStreams { stdout: true, ..StdStreams::default() };
            let streaming = cri.streaming().unwrap();
            for (streamed, path) in [
                (streaming.exec(&id, &["id".into()], wanted).await.unwrap(), "/exec/"),
                (streaming.attach(&id, wanted).await.unwrap(), "/attach/"),
            ] {
                match streamed {
                    Streamed::Served(url) => assert!(url.starts_with("http") && url.contains(path), "{url}"),
                    Streamed::Session(_) => panic!("the runtime serves it"),
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_containers_process_is_told_while_it_runs() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let id = start(cri, script(&owner, "polite", IMAGE, POLITE)).await;
            let process = cri.process(&id).await.unwrap();
            let pid = process.pid.unwrap();
            let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert!(cgroup.contains(&id), "{cgroup}");
            assert!(process.network().unwrap().exists());
            cri.stop(&id, Duration::from_secs(10)).await.unwrap();
            assert_eq!(cri.process(&id).await.unwrap(), Process::default());
            cri.remove(&id).await.unwrap();
            let gone = cri.process(&id).await.unwrap_err();
            assert!(matches!(gone, RuntimeError::NotFound { .. }), "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn images_are_told_by_all_their_names_and_pods_get_a_network() {
    let Some(cri) = cri().await else { return };
    let images = cri.images().await.unwrap();
    let busybox = images.iter().find(|image| image.names.iter().any(|name| name == IMAGE)).unwrap();
    let record = cri.image(IMAGE).await.unwrap().unwrap();
    assert_eq!(busybox.size, record.size);
    assert!(busybox.size > 1 << 16 && record.tags.iter().all(|tag| busybox.names.contains(tag)), "{busybox:?}");
    assert!(images.is_sorted_by_key(|image| std::cmp::Reverse(image.size)), "{images:?}");
    assert_eq!(cri.pod_network().await.unwrap(), PodNetwork::Ready);
}

/// What the network plugin has in the packet filter for a sandbox.
fn packet_filter_rules(sandbox: &str) -> Vec<String> {
    let rules = std::process::Command::new("iptables").args(["-w", "-t", "nat", "-S"]).output().unwrap();
    assert!(rules.status.success(), "{rules:?}");
    let rules = String::from_utf8(rules.stdout).unwrap();
    rules.lines().filter(|line| line.contains(sandbox)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_network_that_is_being_taken_away_goes_whole_though_the_caller_has_gone() {
    let Some(cri) = cri().await else { return };
    with_owner(&cri, |owner| {
        let cri = &cri;
        async move {
            let mut config = placed(cri, script(&owner, "web", IMAGE, "")).await;
            cri.remove(&config.sandbox.take().unwrap()).await.unwrap();
            let mut sandbox = *config.sandbox_config.unwrap();
            sandbox.network = NetworkMode::Default;
            // The plugin is at work at some of these moments, whatever the machine.
            for patience in (0..16).map(|n| Duration::from_millis(20 * n)) {
                let id = cri.create_sandbox(&sandbox).await.unwrap();
                assert!(!packet_filter_rules(&id).is_empty(), "the plugin masquerades");
                let _ = tokio::time::timeout(patience, cri.remove(&id)).await;
                cri.finish().await;
                cri.remove(&id).await.unwrap();
                assert_eq!(packet_filter_rules(&id), Vec::<String>::new(), "after {patience:?}");
            }
        }
    })
    .await;
}
