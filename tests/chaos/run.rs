//! One run: does what the script says, remembers what is wanted, and judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use kubeboot::host::fs::write_file;
use kubeboot::testing::real::command::signal;
use kubeboot::testing::real::wait::POLL;
use serde_json::Value;

use crate::judge::{self, Wanted};
use crate::machine::Machine;
use crate::pods::KINDS;
use crate::script::{Action, Script, Step};

/// How long things may take to become what they should be, once the harm has stopped.
const LIMIT: Duration = Duration::from_secs(90);
/// How many steps are done before things must settle.
const STEPS: usize = 25;
/// What the agent's clock may be ahead or behind by, in seconds.
const CLOCKS: &[i64] = &[3600, -3600, 86_400, -86_400, 400 * 86_400, 30, -30];

/// See the module.
pub struct Run {
    machine: Machine,
    script: Script,
    seed: u64,
    begin: Instant,
    wanted: Vec<Wanted>,
    /// The revision of each that was seen to run, and is still the newest.
    ran: Vec<Option<u32>>,
    revision: u32,
    done: BTreeMap<Action, u32>,
    settled: Vec<Duration>,
    memory: f64,
    uids: BTreeSet<String>,
    failures: Vec<String>,
}

impl Run {
    /// Everything runs, and is as it should be.
    pub async fn new(seed: u64) -> Self {
        let mut machine = Machine::new(true);
        machine.start_docker().await;
        machine.build_images().await;
        machine.start_agent();
        let clock = if machine.clock {
            "the agent's own wall clock (libfaketime); the machine's clock, dockerd's and containers' stay as they are"
        } else {
            "none: libfaketime is not installed (Debian: faketime), so the clock stays as it is"
        };
        println!("chaos: seed {seed}, {} pods; clock jumps: {clock}", KINDS.len());
        let wanted = vec![Wanted::Absent; KINDS.len()];
        let mut run = Self {
            machine,
            script: Script::new(seed, KINDS.len()),
            seed,
            begin: Instant::now(),
            wanted,
            ran: vec![None; KINDS.len()],
            revision: 0,
            done: BTreeMap::new(),
            settled: vec![],
            memory: 0.0,
            uids: BTreeSet::new(),
            failures: vec![],
        };
        run.restore();
        run.settle("at the beginning").await;
        run
    }

    /// Does harm for so long, and lets things settle now and then.
    pub async fn harm(&mut self, lasting: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < lasting {
            for step in self.script.by_ref().take(STEPS).collect::<Vec<_>>() {
                self.step(step).await;
                std::thread::sleep(step.pause);
                if let Some(ended) = self.machine.agent_ended() {
                    self.fail(vec![ended]);
                    self.machine.start_agent();
                }
                if begin.elapsed() > lasting {
                    break;
                }
            }
            self.settle("after harm").await;
        }
    }

    /// The second half: dockerd stops its containers when it ends.
    pub async fn without_live_restore(&mut self) {
        println!("      from here on without --live-restore");
        self.machine.end_docker("TERM");
        self.machine.live_restore = false;
        self.machine.start_docker().await;
    }

    /// Every manifest is valid, then every manifest goes.
    pub async fn end(&mut self) {
        self.machine.set_clock(0);
        self.restore();
        self.settle("with every manifest valid").await;
        for pod in 0..KINDS.len() {
            self.remove(pod);
        }
        self.settle("with no manifest").await;
        let uid = |line: &str| {
            line.split("uid=").nth(1)?.split([' ', '}']).next().map(|uid| uid.trim_matches('"').to_owned())
        };
        let log = fs::read(self.machine.path("agent.log")).unwrap_or_default();
        self.uids.extend(String::from_utf8_lossy(&log).lines().filter_map(uid));
        // The last directories go a moment after the last report; what was busy then, with the list that comes next.
        let begin = Instant::now();
        let mut left = judge::leftovers(&self.machine, &self.uids);
        while !left.is_empty() && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(POLL);
            left = judge::leftovers(&self.machine, &self.uids);
        }
        self.fail(left.into_iter().map(|what| format!("left behind: {what}")).collect());
        self.memory = self.machine.agent_figure("VmHWM");
    }

    /// Prints what was done and found, takes everything away, and says whether all is well.
    pub fn summary(&mut self) -> bool {
        let actions: Vec<String> = self.done.iter().map(|(action, count)| format!("{action:?} {count}")).collect();
        let longest = self.settled.iter().max().copied().unwrap_or_default();
        let now = self.machine.agent_figure("VmRSS");
        println!(
            "\nchaos: seed {}, {} s, {} steps",
            self.seed,
            self.begin.elapsed().as_secs(),
            self.done.values().sum::<u32>()
        );
        println!("  actions    {}", actions.join(", "));
        println!("  settled    {} times, the longest took {:.1} s", self.settled.len(), longest.as_secs_f64());
        println!("  pods       {} manifests, {} revisions, {} UIDs seen", KINDS.len(), self.revision, self.uids.len());
        println!(
            "  agent      {now:.1} MB resident, {:.1} MB at most, {} threads",
            self.memory,
            self.machine.agent_figure("Threads")
        );
        println!("  failures   {}", self.failures.len());
        for failure in &self.failures {
            println!("    - {failure}");
        }
        let well = self.failures.is_empty();
        self.machine.clear(!well);
        well
    }

    fn fail(&mut self, what: Vec<String>) {
        for failure in &what {
            println!("      FAILURE: {failure}");
        }
        self.failures.extend(what);
    }

    async fn settle(&mut self, when: &str) {
        match judge::settle(&self.machine, &self.wanted, LIMIT).await {
            Ok(took) => {
                println!(
                    "{:5.0} s settled {when} after {:.1} s",
                    self.begin.elapsed().as_secs_f64(),
                    took.as_secs_f64()
                );
                self.settled.push(took);
                for (ran, wanted) in self.ran.iter_mut().zip(&self.wanted) {
                    if let Wanted::Revision(revision) = wanted {
                        *ran = Some(*revision);
                    }
                }
            }
            Err(wrong) => self.fail(wrong.iter().map(|what| format!("not settled {when}: {what}")).collect()),
        }
        self.uids.extend(judge::uids(&self.machine));
        self.memory = self.memory.max(self.machine.agent_figure("VmHWM"));
    }

    async fn step(&mut self, step: Step) {
        *self.done.entry(step.action).or_default() += 1;
        let name = KINDS[step.pod].name;
        println!("{:5.0} s {:?} {name} #{}", self.begin.elapsed().as_secs_f64(), step.action, step.pick);
        match step.action {
            Action::KillProcess => self.on_container(step.pick, false, "kill"),
            Action::StopContainer => self.on_container(step.pick, false, "stop"),
            Action::RemoveContainer => self.on_container(step.pick, false, "rm"),
            Action::KillPause => self.on_container(step.pick, true, "kill"),
            Action::RemovePause => self.on_container(step.pick, true, "rm"),
            Action::KillAgent => self.restart_agent("KILL"),
            Action::StopAgent => self.restart_agent("TERM"),
            Action::FreezeAgent => {
                self.machine.signal_agent("STOP");
                self.on_container(step.pick, false, "kill");
                std::thread::sleep(Duration::from_secs(1));
                self.machine.signal_agent("CONT");
            }
            Action::KillDocker => {
                self.machine.end_docker("KILL");
                self.machine.start_docker().await;
            }
            Action::StopDocker => {
                self.machine.end_docker("TERM");
                self.machine.start_docker().await;
            }
            Action::Edit => self.write(step.pod),
            Action::EditTwentyTimes => (0..20).for_each(|_| self.write(step.pod)),
            Action::Remove => self.remove(step.pod),
            Action::Restore => self.restore(),
            Action::WriteHalf => self.write_half(step.pod),
            Action::WriteOtherKind => {
                self.put(step.pod, "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: set}\nspec: {}\n");
                self.spoilt(step.pod);
            }
            Action::ReplaceDirectory => self.replace_directory(),
            Action::HideDirectory => {
                let (there, away) = (self.machine.path("manifests"), self.machine.path("away"));
                fs::rename(&there, &away).unwrap();
                std::thread::sleep(Duration::from_millis(1500));
                fs::rename(&away, &there).unwrap();
            }
            Action::FillDisk => {
                if let Err(error) = self.machine.fill_disk() {
                    self.fail(vec![error]);
                }
                self.write(step.pod);
                self.on_container(step.pick, false, "kill");
                std::thread::sleep(Duration::from_secs(3));
                self.machine.free_disk();
            }
            Action::JumpClock => self.machine.set_clock(CLOCKS[step.pick % CLOCKS.len()]),
        }
    }

    /// Harms one of the running containers (or pause containers), by dockershim's name so that the order is the same.
    fn on_container(&self, pick: usize, pause: bool, how: &str) {
        let mut all = self.machine.containers().unwrap_or_default();
        all.retain(|one| {
            let is_pause = one["Config"]["Labels"]["io.kubernetes.docker.type"] == "podsandbox";
            is_pause == pause && one["State"]["Running"] == Value::Bool(true)
        });
        all.sort_by_key(|one| one["Name"].as_str().map(str::to_owned));
        if all.is_empty() {
            return;
        }
        let one = &all[pick % all.len()];
        let id = one["Id"].as_str().unwrap_or_default();
        match how {
            "kill" => signal(&one["State"]["Pid"], "KILL"),
            "stop" => drop(self.machine.docker(&["kill", "-s", "TERM", id])),
            _ => drop(self.machine.docker(&["rm", "-f", id])),
        }
    }

    fn restart_agent(&mut self, with: &str) {
        self.machine.end_agent(with);
        self.machine.start_agent();
    }

    /// Writes a manifest aside and renames it into place.
    fn put(&self, pod: usize, text: &str) {
        write_file(&self.machine.path("manifests").join(KINDS[pod].file()), text.as_bytes(), 0o600).unwrap();
    }

    /// A new revision of a manifest.
    fn write(&mut self, pod: usize) {
        self.revision += 1;
        self.put(pod, &KINDS[pod].manifest(self.revision, self.machine.port));
        (self.wanted[pod], self.ran[pod]) = (Wanted::Revision(self.revision), None);
    }

    fn write_half(&mut self, pod: usize) {
        let text = KINDS[pod].manifest(self.revision, self.machine.port);
        let half = text.split_inclusive("- name: main").next().unwrap_or_default();
        let mut file = fs::File::create(self.machine.path("manifests").join(KINDS[pod].file())).unwrap();
        file.write_all(half.as_bytes()).unwrap();
        file.write_all(b"\n    image: [").unwrap();
        self.spoilt(pod);
    }

    fn spoilt(&mut self, pod: usize) {
        self.wanted[pod] = Wanted::Spoilt(self.ran[pod]);
    }

    fn remove(&mut self, pod: usize) {
        let _ = fs::remove_file(self.machine.path("manifests").join(KINDS[pod].file()));
        (self.wanted[pod], self.ran[pod]) = (Wanted::Absent, None);
    }

    /// Writes what is missing or spoilt.
    fn restore(&mut self) {
        for pod in 0..KINDS.len() {
            if !matches!(self.wanted[pod], Wanted::Revision(_)) {
                self.write(pod);
            }
        }
    }

    fn replace_directory(&self) {
        let (there, next, old) = (self.machine.path("manifests"), self.machine.path("next"), self.machine.path("old"));
        fs::create_dir(&next).unwrap();
        for file in fs::read_dir(&there).unwrap().flatten() {
            fs::copy(file.path(), next.join(file.file_name())).unwrap();
        }
        fs::rename(&there, &old).unwrap();
        fs::rename(&next, &there).unwrap();
        fs::remove_dir_all(old).unwrap();
    }
}
