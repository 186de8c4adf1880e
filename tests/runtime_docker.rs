//! The runtime against a real Docker daemon.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kubeboot::runtime::docker::Docker;
use kubeboot::runtime::docker::build::{BuildError, ImageSpec, build_image};
use kubeboot::runtime::*;
use kubeboot::testing::real::image::{IMAGE, busybox, docker};
use kubeboot::testing::real::wait::{LIMIT, eventually};
use kubeboot::testing::runtime_behaviour::{
    POLITE, behaves_like_a_runtime, pulls_as_who_it_is_told, script, with_owner,
};

/// What a script prints when it runs as this container, after `ready`.
async fn output_of(docker: &Docker, config: &ContainerConfig) -> Vec<String> {
    let owner = &config.labels[labels::OWNER];
    let mut events = docker.events(owner).await.unwrap();
    let id = docker.create_container(config).await.unwrap();
    docker.start(&id).await.unwrap();
    while events.next().await.unwrap().unwrap() != exited(&id, config) {}
    let mut log = docker.log_tail(&id, 1000).await.unwrap();
    // stdout and stderr come in any order.
    log.remove(log.iter().position(|line| line == "ready").unwrap());
    log
}

fn exited(id: &str, config: &ContainerConfig) -> RuntimeEvent {
    RuntimeEvent { id: id.to_owned(), pod_uid: config.name.uid.clone(), kind: RuntimeEventKind::Exited }
}

#[tokio::test]
async fn docker_behaves_like_a_runtime() {
    let docker = docker().await;
    behaves_like_a_runtime(&docker, IMAGE).await;
}

#[tokio::test]
async fn an_image_is_pulled_as_who_the_credentials_say() {
    let docker = docker().await;
    pulls_as_who_it_is_told(&docker).await;
}

#[tokio::test]
async fn a_container_has_its_user_environment_mounts_and_rights() {
    let docker = docker().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir(path("ro")).unwrap();
    with_owner(&docker, |owner| {
        let docker = &docker;
        let mounts = [("ro", true), ("made", false)].map(|(name, read_only)| Mount {
            host_path: path(name),
            container_path: format!("/mnt/{name}"),
            read_only,
            recursive_read_only: false,
            propagation: Propagation::Private,
        });
        async move {
            let mut config = script(
                &owner,
                "web",
                IMAGE,
                "id -u; id -g; id -G; echo $A; pwd; cat /proc/self/status \
                | grep -e NoNewPrivs -e Seccomp: -e CapEff; grep -c /mnt/ro.*ro, /proc/mounts; stat -c %F /mnt/made",
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
            let output = output_of(docker, &config).await.join("|").replace('\t', " ");
            assert_eq!(
                output,
                "1234|2345|2345 77|b c|/etc|CapEff: 0000000000000000|NoNewPrivs: 1|Seccomp: 2|1|directory"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_critical_containers_negative_adjustment_keeps_nobody_from_starting() {
    let docker = docker().await;
    with_owner(&docker, |owner| {
        let docker = &docker;
        async move {
            let mut config = script(&owner, "web", IMAGE, "cat /proc/self/oom_score_adj");
            config.resources.oom_score_adj = -997;
            let output = output_of(docker, &config).await;
            assert!(["-997", "0"].contains(&output[0].as_str()), "{output:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_that_is_not_there_ends_with_126_or_127_and_one_that_hangs_at_the_limit() {
    let docker = docker().await;
    with_owner(&docker, |owner| {
        let docker = &docker;
        async move {
            let id = docker.create_container(&script(&owner, "polite", IMAGE, POLITE)).await.unwrap();
            docker.start(&id).await.unwrap();
            let missing = docker.exec(&id, &["/nowhere".into()], Duration::from_secs(30)).await.unwrap();
            assert!([126, 127].contains(&missing.exit_code), "{missing:?}");
            let begin = Instant::now();
            let hangs = docker.exec(&id, &["sleep".into(), "60".into()], Duration::from_millis(300)).await;
            assert!(matches!(hangs, Err(RuntimeError::Timeout { .. })), "{hangs:?}");
            assert!(begin.elapsed() < Duration::from_secs(20));
            let flood = ["sh".to_owned(), "-c".to_owned(), "seq 1 100000".to_owned()];
            let flood = docker.exec(&id, &flood, Duration::from_secs(30)).await.unwrap();
            assert_eq!((flood.exit_code, flood.output.len()), (0, 10 * 1024));
        }
    })
    .await;
}

/// Processes of a container that have 4747 in their command line, the asking shell aside.
async fn holders_of(docker: &Docker, id: &str) -> String {
    let search = "for one in /proc/[0-9]*; do grep -q 474[7] $one/cmdline && echo $one; done; true";
    let command = ["sh", "-c", search].map(str::to_owned);
    docker.exec(id, &command, Duration::from_secs(30)).await.unwrap().output
}

#[tokio::test]
async fn a_command_that_is_given_up_leaves_no_process_and_the_container_goes_on() {
    let docker = docker().await;
    with_owner(&docker, |owner| {
        let docker = &docker;
        async move {
            let id = docker.create_container(&script(&owner, "polite", IMAGE, POLITE)).await.unwrap();
            docker.start(&id).await.unwrap();
            let tree = "(sleep 4747 & sleep 4747) & sleep 4747; echo";
            let command = ["sh".to_owned(), "-c".to_owned(), tree.to_owned()];
            let hangs = docker.exec(&id, &command, Duration::from_millis(500)).await;
            assert!(matches!(hangs, Err(RuntimeError::Timeout { .. })), "{hangs:?}");
            let is_gone = async || holders_of(docker, &id).await.is_empty();
            eventually("the command is ended", LIMIT, is_gone).await;
            assert!(docker.inspect(&id).await.unwrap().state.is_running());
        }
    })
    .await;
}

#[tokio::test]
async fn the_log_is_read_from_its_end_and_lies_where_docker_says() {
    let docker = docker().await;
    with_owner(&docker, |owner| {
        let docker = &docker;
        async move {
            let config = script(&owner, "job", IMAGE, "seq 1 500; echo error >&2");
            let lines = output_of(docker, &config).await;
            assert_eq!(lines.len(), 501);
            assert!(lines.iter().any(|line| line == "error"), "{lines:?}");
            let id = &docker.list(&owner).await.unwrap()[0].id;
            assert_eq!(docker.log_tail(id, 3).await.unwrap(), lines[498..]);
            let file = docker.log_path(id).await.unwrap().unwrap();
            let expected = match docker.version().await.unwrap().name.as_str() {
                "podman" => "ctr.log".to_owned(),
                _ => format!("{id}-json.log"),
            };
            assert!(file.ends_with(&expected) && Path::new(&file).exists(), "{file}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_could_not_be_run() {
    let docker = docker().await;
    with_owner(&docker, |owner| {
        let docker = &docker;
        async move {
            let mut config = script(&owner, "web", IMAGE, "");
            config.command = vec!["/nowhere".into()];
            let id = docker.create_container(&config).await.unwrap();
            let error = docker.start(&id).await.unwrap_err();
            assert!(matches!(&error, RuntimeError::Refused { message, .. } if message.contains("/nowhere")), "{error}");
            let state = docker.inspect(&id).await.unwrap().state;
            if docker.version().await.unwrap().name == "podman" {
                // It notes no try, and the next one fails as well.
                assert_eq!(state, ContainerState::Created);
                return;
            }
            assert!(
                matches!(&state, ContainerState::Exited { reason, exit_code: 127, message, started_at: None, .. }
                    if reason == "StartError" && message.contains("/nowhere")),
                "{state:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn the_same_files_make_the_same_image_and_other_files_replace_it() {
    const OWN: &str = "kubeboot.test/replaced:1";
    let docker = docker().await;
    let first = build_image(&docker, &busybox(OWN)).await.unwrap();
    assert_eq!(build_image(&docker, &busybox(OWN)).await.unwrap().id, first.id);
    let more = ImageSpec { entrypoint: vec!["/bin/sh".into()], ..busybox(OWN) };
    let second = build_image(&docker, &more).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(docker.image(OWN).await.unwrap().unwrap().id, second.id);
    docker.remove_image(OWN).await.unwrap();
    assert_eq!(docker.image(OWN).await.unwrap(), None);
    assert_eq!(docker.image(&second.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_linked_program_brings_its_libraries_and_a_reference_without_a_tag_is_refused() {
    const OWN: &str = "kubeboot.test/linked:1";
    let docker = docker().await;
    // Any linked program will do that prints and ends; every Debian has this one.
    let linked = ImageSpec::of_program(OWN, "uname", Path::new("/bin/uname"));
    build_image(&docker, &linked).await.unwrap();
    with_owner(&docker, |owner| {
        let docker = &docker;
        async move {
            let mut config = script(&owner, "job", OWN, "");
            (config.command, config.args) = (vec![], vec!["-s".into()]);
            let mut events = docker.events(&owner).await.unwrap();
            let id = docker.create_container(&config).await.unwrap();
            docker.start(&id).await.unwrap();
            while events.next().await.unwrap().unwrap() != exited(&id, &config) {}
            assert_eq!(docker.log_tail(&id, 5).await.unwrap(), ["Linux"]);
        }
    })
    .await;
    docker.remove_image(OWN).await.unwrap();
    let untagged = ImageSpec::of_program("kubeboot.test/linked", "uname", Path::new("/bin/uname"));
    let error = build_image(&docker, &untagged).await.unwrap_err();
    assert!(matches!(error, BuildError::Reference { .. }), "{error}");
}
