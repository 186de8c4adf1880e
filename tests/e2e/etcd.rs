//! Upgrades across a minor version of etcd, with the etcd of the next Debian release, which `KUBEBOOT_TEST_ETCD` names:
//! the old etcd does not open data that the new one has opened.

use std::time::Duration;

use kubeboot::testing::real::image;

use crate::machine::*;
use crate::writer::{Writer, missing};

const MINUTE: Duration = Duration::from_secs(60);
const CRASHING: &str = "kubeboot-test/crashing:1";
const DEAF: &str = "kubeboot-test/deaf-etcd:1";

fn newer_etcd() -> String {
    std::env::var("KUBEBOOT_TEST_ETCD")
        .unwrap_or_else(|_| panic!("KUBEBOOT_TEST_ETCD has to name an image of a newer etcd: scripts/newer-etcd.sh"))
}

/// The image in etcd's manifest.
fn image_of_etcd() -> String {
    let text = std::fs::read_to_string("/etc/kubernetes/manifests/etcd.yaml").unwrap();
    text.lines().find_map(|line| line.trim().strip_prefix("image: ")).unwrap().to_owned()
}

fn images(components: &[(&str, &str)]) -> Vec<String> {
    let mut args: Vec<String> = ["upgrade", "apply", "--yes"].map(str::to_owned).to_vec();
    args.extend(components.iter().flat_map(|(name, image)| ["--image".to_owned(), format!("{name}={image}")]));
    args
}

fn apply(components: &[(&str, &str)]) -> Ran {
    let args = images(components);
    kubeboot(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn an_etcd_that_has_served_stays_when_the_api_server_fails_and_no_acknowledged_write_is_lost() {
    image_of_script(CRASHING, "echo out of cheese >&2; exit 3");
    let etcd = newer_etcd();
    let version = etcd.rsplit_once(':').unwrap().1;
    let _plane = ControlPlane::init();
    let old = image_of_etcd();
    let writer = Writer::start();
    writer.wait_for(50);

    let said = apply(&[("etcd", &etcd), ("kube-apiserver", CRASHING)]).code(2);
    assert!(said.contains(&format!("everything is old again, with etcd {version}")), "{said}");
    assert!(said.contains("out of cheese"), "{said}");
    assert_eq!(image_of_etcd(), etcd);
    healthy(MINUTE);
    writer.wait_for(50);

    // This etcd leaves no data that the one before opens: it stays here too.
    let said = kubeboot(&["upgrade", "rollback", "--yes"]).code(2);
    assert!(said.contains(&format!("are back and healthy, with etcd {version}")), "{said}");
    assert!(said.contains("`kubeboot upgrade rollback --etcd-copy` puts the copy"), "{said}");
    writer.wait_for(50);
    let acknowledged = writer.stop();
    assert_eq!(missing(&acknowledged), [""; 0], "of {}", acknowledged.len());
    eprintln!("{} writes acknowledged, none lost", acknowledged.len());

    // What is lost is said, and is lost only when that is asked for.
    let said = kubeboot(&["upgrade", "rollback", "--etcd-copy", "--yes"]).code(0);
    assert!(said.contains("writes since then are lost"), "{said}");
    assert_eq!(image_of_etcd(), old);
    healthy(MINUTE);
    let lost = missing(&acknowledged);
    assert!(lost.len() >= 100 && lost.len() < acknowledged.len() - 10, "{} of {}", lost.len(), acknowledged.len());
    assert!(!lost.contains(&acknowledged[0]));
    run("docker", &["rmi", CRASHING]);
}

/// An image of the newer etcd that opens its data and ends without having answered a client.
fn deaf_etcd(etcd: &str) {
    let script = "#!/own/busybox sh\n/usr/bin/etcd \"$@\" --listen-client-urls=https://127.0.0.1:23990 \
                --listen-metrics-urls=http://127.0.0.1:23991 &\n/own/busybox sleep 8\necho out of cheese >&2\nexit 3\n";
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let files: [(&str, &[u8]); 2] = [("own/etcd", script.as_bytes()), ("own/busybox", &busybox)];
    image::with_files(etcd, DEAF, &files, &["ENV PATH=/own:/usr/bin"]);
}

pub fn an_etcd_that_opens_the_data_and_never_serves_gives_way_to_the_copy_and_no_acknowledged_write_is_lost() {
    let etcd = newer_etcd();
    deaf_etcd(&etcd);
    let _plane = ControlPlane::init();
    let old = image_of_etcd();
    let writer = Writer::start();
    writer.wait_for(50);
    let said = apply(&[("etcd", DEAF)]).code(2);
    assert!(said.contains("no write is lost with that"), "{said}");
    assert!(said.contains("everything is as it was before"), "{said}");
    assert_eq!(image_of_etcd(), old);
    healthy(MINUTE);
    writer.wait_for(50);
    let acknowledged = writer.stop();
    assert_eq!(missing(&acknowledged), [""; 0], "of {}", acknowledged.len());
    eprintln!("{} writes acknowledged, none lost", acknowledged.len());

    // A new etcd that serves is what an upgrade to it ends with, and what a rollback then keeps.
    apply(&[("etcd", &etcd)]).code(0);
    assert_eq!(missing(&acknowledged), [""; 0]);
    run("docker", &["rmi", DEAF]);
}
