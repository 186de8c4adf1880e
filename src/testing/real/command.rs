//! Programs that tests run, to their end: the one under test, kubectl, docker.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What kubectl uses.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code, -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that succeeded.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit {}\nstdout:\n{}\nstderr:\n{}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// Both outputs of a command that ended with this code.
    ///
    /// # Panics
    /// It ended with another.
    #[track_caller]
    pub fn code(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout + &self.stderr
    }

    /// Whether it succeeded; else what it said, for [`super::wait`].
    ///
    /// # Errors
    /// What it said.
    pub fn succeeded(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.stdout) } else { Err(self.stdout + &self.stderr) }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program under test: `KUBEBOOT_BIN` (the release build), else the one that cargo built with these tests.
///
/// # Panics
/// Neither is known: cargo has not started this test.
pub fn program() -> PathBuf {
    let named = std::env::var_os("KUBEBOOT_BIN").or_else(|| std::env::var_os("CARGO_BIN_EXE_kubeboot"));
    named.map(PathBuf::from).unwrap_or_else(|| panic!("set KUBEBOOT_BIN to the kubeboot that is to be tested"))
}

/// Runs any command, without input.
///
/// # Panics
/// It cannot be run.
pub fn run(program: impl AsRef<OsStr>, args: &[&str]) -> Ran {
    let name = program.as_ref();
    let output = Command::new(name).args(args).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{} cannot be run: {error}", name.display())).into()
}

/// Runs the program under test.
pub fn kubeboot(args: &[&str]) -> Ran {
    run(program(), args)
}

/// Runs kubectl as the administrator.
pub fn kubectl(args: &[&str]) -> Ran {
    run("kubectl", &[&["--kubeconfig", ADMIN_CONF, "--request-timeout=20s"], args].concat())
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: impl ToString, name: &str) {
    run("kill", &[&format!("-{name}"), &pid.to_string()]);
}

/// Mount points below these directories, or at them, in the order they were made.
pub fn mounts_below(dirs: &[&Path]) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| dirs.iter().any(|dir| Path::new(point).starts_with(dir))).map(str::to_owned).collect()
}

/// Unmounts what a test, or a pod that was killed with its agent, left mounted.
pub fn unmount_below(dirs: &[&Path]) {
    for mount in mounts_below(dirs).iter().rev() {
        run("umount", &["-l", mount]);
    }
}

/// Writes a file beside and renames it, under a name that no source reads.
///
/// # Panics
/// It cannot be written.
pub fn put(path: &Path, content: impl AsRef<[u8]>) {
    let aside = path.with_file_name(format!(".{}.new", path.file_name().unwrap().to_string_lossy()));
    create(&aside, content);
    fs::rename(aside, path).unwrap();
}

/// Writes a file where nobody reads it yet, and the directories that lead to it.
///
/// # Panics
/// It cannot be written.
pub fn create(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(path).and_then(|mut file| file.write_all(content.as_ref())).unwrap();
}
