use std::fs;
use std::path::PathBuf;
use std::sync::Condvar;

use super::*;
use crate::agent::pod::tests::pod;

/// A machine whose systemd stops no slice before it is let go.
pub struct Stuck {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    free: bool,
}

impl Stuck {
    /// Its cgroups are below `root`.
    pub fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), state: Mutex::default(), changed: Condvar::new() })
    }

    /// Makes the slice of a pod that asks for nothing.
    pub fn add(&self, uid: &str) {
        let dir = Names::new(CgroupDriver::Systemd, "").pod_dir(QosClass::BestEffort, uid);
        fs::create_dir_all(self.root.join(dir)).unwrap();
    }

    /// Waits until a task waits for systemd.
    pub fn until_called(&self) {
        let state = lock(&self.state);
        let (state, late) =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| state.waiting == 0).unwrap();
        assert!(!late.timed_out(), "no slice was to be stopped");
        drop(state);
    }

    /// From now on systemd answers at once.
    pub fn free(&self) {
        lock(&self.state).free = true;
        self.changed.notify_all();
    }
}

impl Machine for Stuck {
    fn tree(&self) -> Result<Option<Tree>, FsError> {
        Ok(Some(Tree::V2(self.root.clone())))
    }

    fn stop_slice(&self, _: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.waiting += 1;
        self.changed.notify_all();
        let state = self.changed.wait_while(state, |state| !state.free).unwrap();
        drop(state);
        Ok(())
    }
}

#[test]
fn a_pod_gets_its_cgroup_while_that_of_another_does_not_go() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = Stuck::new(dir.path());
    stuck.add("gone");
    let cgroups = Arc::new(Cgroups::on(stuck.clone(), &AgentOptions::new("n")));
    cgroups.set_driver(Some(CgroupDriver::Systemd));
    let removing = Arc::clone(&cgroups);
    let removal = std::thread::spawn(move || removing.remove("gone"));
    stuck.until_called();
    let (sender, made) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        cgroups.make(&pod(""));
        sender.send(()).unwrap();
    });
    let made = made.recv_timeout(Duration::from_secs(20));
    stuck.free();
    made.expect("made while the other is being stopped");
    removal.join().unwrap().unwrap();
}
