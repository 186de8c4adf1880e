//! A machine of its own: a container that boots Debian with systemd, Docker and containerd (scripts/systemd-image.sh).
#![allow(dead_code, reason = "each test uses a part")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kubeboot::testing::real::command::{ADMIN_CONF, Ran, kubeboot, program, run};
use kubeboot::testing::real::image::{self, IMAGE};
use kubeboot::testing::real::wait::until_or;

const SYSTEMD: &str = "kubeboot-test/systemd:2";
/// The version whose components scripts/components.sh builds.
pub const VERSION: &str = "v1.20.2";
/// What the tests' own pods run.
pub const WEB: &str = "localhost/web:1";

/// The images of a control plane, the optional ones too.
pub fn component_images() -> Vec<String> {
    let list = kubeboot(&["images", "list", "--kubernetes-version", VERSION]).ok();
    let words = list.lines().filter_map(|line| line.split_whitespace().next());
    words.filter(|word| word.contains(':')).map(str::to_owned).collect()
}

/// Where scripts/components.sh leaves what it builds.
fn component(name: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    let cache = std::env::var("KUBEBOOT_CACHE")
        .unwrap_or_else(|_| std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache")) + "/kubeboot");
    let path = format!("{cache}/components/{VERSION}/{name}");
    assert!(std::path::Path::new(&path).exists(), "{path} is missing: scripts/components.sh --node {VERSION} makes it");
    path
}

/// A machine that is removed at the end, whatever happens.
pub struct Node {
    /// The container's name, which is the machine's as well.
    pub name: String,
}

impl Node {
    /// Boots a machine; its name begins with `name`.
    pub fn boot(name: &str) -> Self {
        Self::boot_with(name, &[])
    }

    /// Boots a machine with a kubelet and kubeadm.
    pub fn boot_with_kubelet(name: &str) -> Self {
        let mounts: Vec<String> = ["kubeadm", "kubelet"]
            .iter()
            .map(|name| format!("{}:/usr/bin/{name}:ro", component(name)))
            // A kubelet looks for the disk below its directory.
            .chain(["/var/lib/kubelet".to_owned()])
            .collect();
        let node = Self::boot_with(name, &mounts);
        node.install_kubelet();
        node
    }

    fn boot_with(name: &str, mounts: &[String]) -> Self {
        let inspect = run("docker", &["image", "inspect", SYSTEMD]);
        assert_eq!(inspect.code, 0, "image {SYSTEMD} is missing: scripts/systemd-image.sh makes it");
        let node = Self { name: format!("{name}-{}", std::process::id()) };
        #[rustfmt::skip]
        let mut args = vec![
            "run", "-d", "--name", &node.name, "--hostname", &node.name, "--stop-signal", "SIGRTMIN+3", "--cap-add=ALL",
            "--cap-drop=SYS_RESOURCE", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--security-opt", "systempaths=unconfined", "--device", "/dev/kmsg", "--cgroupns=host",
            "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs", "/run", "-v", "/var/lib/docker",
            "-v", "/var/lib/containerd", "-v", "/usr/bin/kubectl:/usr/bin/kubectl:ro",
        ];
        args.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
        args.push(SYSTEMD);
        run("docker", &args).ok();
        node.eventually("docker and containerd in the node", 60, || node.run("docker version && ctr version").0 == 0);
        node
    }

    /// Brings the program under test.
    pub fn give_kubeboot(&self) {
        let to = format!("{}:/usr/local/bin/kubeboot", self.name);
        run("docker", &["cp", program().to_str().unwrap(), &to]).ok();
    }

    /// Brings images into the node's Docker.
    pub fn load(&self, images: &[String]) {
        self.take_images(images, &["docker", "load", "--quiet"]);
    }

    /// Brings images to the kubelet's runtime.
    pub fn import(&self, images: &[String]) {
        self.take_images(images, &["ctr", "-n", "k8s.io", "images", "import", "-"]);
    }

    fn take_images(&self, images: &[String], command: &[&str]) {
        let mut save = Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn().unwrap();
        let load = Command::new("docker")
            .args(["exec", "-i", &self.name])
            .args(command)
            .stdin(save.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(save.wait().unwrap().success() && load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    }

    /// Installs the kubelet as its package does, set to this machine's limits.
    fn install_kubelet(&self) {
        let unit = "/lib/systemd/system/kubelet.service";
        let drop_ins = "/etc/systemd/system/kubelet.service.d";
        self.write(unit, include_str!("files/kubelet.service"));
        self.write(&format!("{drop_ins}/05-cgroup-root.conf"), include_str!("files/05-cgroup-root.conf"));
        self.write(&format!("{drop_ins}/10-kubeadm.conf"), include_str!("files/10-kubeadm.conf"));
        let flags = format!(
            "--cgroup-driver=cgroupfs --cgroup-root=/nodes/{} --eviction-hard=memory.available<50Mi",
            self.name
        );
        self.write("/etc/default/kubelet", &format!("KUBELET_EXTRA_ARGS={flags}\n"));
        self.ok("systemctl daemon-reload && systemctl enable --quiet kubelet");
    }

    /// Takes Docker away, so that containerd is the one runtime that is found.
    pub fn remove_docker(&self) {
        self.ok("systemctl disable --quiet --now docker.service docker.socket; rm -f /run/docker.sock; test -S /run/containerd/containerd.sock");
    }

    pub fn write(&self, path: &str, content: &str) {
        let dir = std::path::Path::new(path).parent().unwrap().display();
        let mut command = Command::new("docker")
            .args(["exec", "-i", &self.name, "bash", "-c", &format!("mkdir -p {dir} && cat >{path}")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut command.stdin.take().unwrap(), content.as_bytes()).unwrap();
        assert!(command.wait().unwrap().success(), "{path}");
    }

    pub fn run(&self, script: &str) -> (i32, String) {
        let Ran { code, stdout, stderr } = run("docker", &["exec", &self.name, "bash", "-c", script]);
        (code, stdout + &stderr)
    }

    pub fn ok(&self, script: &str) -> String {
        let (code, text) = self.run(script);
        assert_eq!(code, 0, "{script}:\n{text}\n{}", self.journal());
        text
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self, args: &str) -> (i32, String) {
        self.run(&format!("kubectl --kubeconfig {ADMIN_CONF} {args}"))
    }

    /// The same, which must succeed.
    pub fn kubectl_ok(&self, args: &str) -> String {
        let (code, text) = self.kubectl(args);
        assert_eq!(code, 0, "kubectl {args}:\n{text}");
        text
    }

    /// What is waited for until it is there; returns the seconds it took.
    pub fn eventually(&self, what: &str, seconds: u64, test: impl Fn() -> bool) -> f32 {
        let started = Instant::now();
        until_or(what, Duration::from_secs(seconds), test, || self.journal());
        started.elapsed().as_secs_f32()
    }

    /// The agent reports everything healthy.
    pub fn healthy(&self, what: &str) -> f32 {
        self.eventually(what, 120, || self.run("kubeboot status").0 == 0)
    }

    fn journal(&self) -> String {
        self.run("journalctl -u kubelet --no-pager -o cat | tail -n 30; kubeboot status").1
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KUBEBOOT_KEEP_NODES").is_some() {
            return;
        }
        run("docker", &["rm", "-f", "-v", &self.name]);
        // The kubelet's pods died with the machine; their cgroups are the host's.
        run("bash", &["-c", &format!("find /sys/fs/cgroup/*/nodes/{} -depth -type d -delete", self.name)]);
    }
}

/// A static web server for pods.
pub fn web_image() -> Vec<String> {
    image::made();
    let serves = "ENTRYPOINT [\"/bin/httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]";
    image::with_files(IMAGE, WEB, &[("www/index.html", b"hello\n")], &[serves, "CMD []"]);
    vec![WEB.to_owned()]
}
