//! What the pods of tests run: this machine's busybox, in images that kubeboot's own builder makes. Their registry is a
//! port at which nobody answers, so that a pull is refused at once.

use std::path::Path;

use tokio::sync::OnceCell;

use super::command::{create, run};
use crate::runtime::ContainerRuntime;
use crate::runtime::docker::Docker;
use crate::runtime::docker::build::{BIN_DIR, ImageSpec, build_image};

const BUSYBOX: &str = "/bin/busybox";
/// Everything a test needs.
pub const IMAGE: &str = "127.0.0.1:1/kubeboot/busybox:1";
/// The same under the tag that is always pulled.
pub const LATEST: &str = "127.0.0.1:1/kubeboot/busybox:latest";
/// The pause image.
pub const PAUSE: &str = "127.0.0.1:1/kubeboot/pause:1";
/// All of them.
pub const ALL: [&str; 3] = [IMAGE, LATEST, PAUSE];

/// A main process that ends at SIGTERM, as a real one does: a shell as process 1 would ignore it.
pub const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
/// A main process that hears SIGTERM and goes on.
pub const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";

/// The names under which busybox is called.
const LINKS: [&str; 28] = [
    "[", "busybox", "cat", "date", "echo", "grep", "head", "httpd", "id", "kill", "ls", "mkdir", "mount", "nc",
    "nproc", "rm", "seq", "sh", "sleep", "stat", "stty", "tail", "test", "touch", "tr", "true", "uname", "wget",
];

/// The image of a busybox, under any reference.
pub fn busybox(reference: &str) -> ImageSpec {
    let program = format!("{BIN_DIR}/busybox");
    ImageSpec {
        links: LINKS.map(|link| (format!("/bin/{link}"), program.clone())).to_vec(),
        ..ImageSpec::of_program(reference, "busybox", Path::new(BUSYBOX))
    }
}

/// The machine's own Docker, or that of `DOCKER_HOST`, which has [`ALL`] images then: they are made once.
///
/// # Panics
/// It does not answer, or busybox is not here.
pub async fn docker() -> Docker {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let docker = Docker::connect(None).unwrap();
    MADE.get_or_init(async || build(&docker).await).await;
    docker
}

/// [`docker`] where nothing else is waited for.
///
/// # Panics
/// As [`docker`] does.
pub fn made() {
    tokio::runtime::Runtime::new().unwrap().block_on(docker());
}

/// Builds [`ALL`] images on any Docker. The same busybox makes the same image, so several may do so at the same time.
///
/// # Panics
/// It does not answer, or busybox is not here.
pub async fn build(docker: &Docker) {
    if let Err(error) = docker.version().await {
        panic!("these tests need a Docker daemon at {}: {error}", docker.address());
    }
    assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
    let entrypoint = ["/bin/sh", "-c", FOREVER].map(str::to_owned).to_vec();
    for spec in [busybox(IMAGE), busybox(LATEST), ImageSpec { entrypoint, ..busybox(PAUSE) }] {
        build_image(docker, &spec).await.unwrap();
    }
}

/// An image of `base` with further files, each of which may be run: paths without a `/` before them, and contents.
/// `changes` are instructions as `docker commit` takes them.
///
/// # Panics
/// Docker does not make it.
pub fn with_files(base: &str, reference: &str, files: &[(&str, &[u8])], changes: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let file = dir.path().join(path);
        create(&file, content);
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let id = run("docker", &["create", base, "none"]).ok().trim().to_owned();
    run("docker", &["cp", &format!("{}/.", dir.path().display()), &format!("{id}:/")]).ok();
    let changes: Vec<&str> = changes.iter().flat_map(|change| ["--change", change]).collect();
    run("docker", &[&["commit"], changes.as_slice(), &[&id, reference]].concat()).ok();
    run("docker", &["rm", &id]).ok();
}
