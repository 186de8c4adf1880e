//! What the pods here run: this machine's busybox, in images that kubeboot's own builder makes. Their registry is a
//! port at which nobody answers, so that a pull is refused at once.

use std::path::Path;

use kubeboot::runtime::ContainerRuntime;
use kubeboot::runtime::docker::Docker;
use kubeboot::runtime::docker::build::{ImageSpec, build_image};

const BUSYBOX: &str = "/bin/busybox";
/// Everything a test needs.
pub const IMAGE: &str = "127.0.0.1:1/kubeboot/conformance:1";
/// The same under the tag that is always pulled.
pub const LATEST: &str = "127.0.0.1:1/kubeboot/conformance:latest";
/// The pause image.
pub const PAUSE: &str = "127.0.0.1:1/kubeboot/conformance-pause:1";

/// A main process that ends at SIGTERM, as a real one does: a shell as process 1 would ignore it.
pub const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
/// All of them.
pub const ALL: [&str; 3] = [IMAGE, LATEST, PAUSE];

/// A main process that hears SIGTERM and goes on.
pub const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";

/// Builds every image, on the machine's own Docker or on another daemon.
pub async fn build(docker_host: Option<&str>) -> Result<(), String> {
    let docker = Docker::connect(docker_host).map_err(|error| error.to_string())?;
    let address = docker.address();
    docker.version().await.map_err(|error| format!("these tests need a Docker daemon at {address}: {error}"))?;
    if !Path::new(BUSYBOX).exists() {
        return Err(format!("{BUSYBOX} is missing: apt-get install busybox-static"));
    }
    let links = [
        "cat", "date", "echo", "grep", "head", "httpd", "id", "kill", "ls", "mkdir", "nc", "rm", "sh", "sleep", "stat",
        "tail", "test", "touch", "tr", "true", "wget",
    ];
    let image = ImageSpec {
        links: links.map(|link| (format!("/bin/{link}"), "/usr/local/bin/busybox".to_owned())).to_vec(),
        ..ImageSpec::of_program(IMAGE, "busybox", Path::new(BUSYBOX))
    };
    let latest = ImageSpec { reference: LATEST.to_owned(), ..image.clone() };
    let entrypoint = ["/bin/sh", "-c", FOREVER].map(str::to_owned).to_vec();
    let pause = ImageSpec { reference: PAUSE.to_owned(), entrypoint, ..image.clone() };
    for spec in [image, latest, pause] {
        build_image(&docker, &spec).await.map_err(|error| format!("{}: {error}", spec.reference))?;
    }
    Ok(())
}
