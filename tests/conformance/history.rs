//! What happened to a node's containers, as the runtime tells it: independent of what the agent says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub use kubeboot::testing::real::engine::{Action, Event, Parse};

/// A program that tells what happens, and what it told.
pub struct History {
    process: Child,
    told: Arc<Mutex<Told>>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Told {
    lines: String,
    events: Vec<Event>,
}

/// Events in the order in which they happened.
#[derive(Debug, Clone)]
pub struct Events(Vec<Event>);

impl History {
    /// Starts recording.
    pub fn start((mut command, mut parse): (Command, Parse)) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let told: Arc<Mutex<Told>> = Arc::default();
        let record = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = parse(&line);
                let mut told = record.lock().unwrap();
                told.lines += &line;
                told.events.extend(event);
            }
        });
        Self { process, told, reader }
    }

    /// Whether a line that has this text in it has come.
    pub fn has_told(&self, text: &str) -> bool {
        self.told.lock().unwrap().lines.contains(text)
    }

    /// Whether it goes on telling.
    pub fn goes_on(&self) -> bool {
        !self.reader.is_finished()
    }

    /// What has happened so far.
    pub fn events(&self) -> Events {
        Events(self.told.lock().unwrap().events.clone())
    }
}

impl Drop for History {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

impl Events {
    /// What is missing for them to lead to what there is now, containers and whether they run: a runtime's events come
    /// late. Empty when nothing is. With `untold` the removal of what has ended need not have been told: it would have
    /// come by now, and containerd (1.6) has been seen to tell of one never.
    pub fn missing(&self, now: &BTreeMap<String, bool>, untold: bool) -> Vec<String> {
        let ids: BTreeSet<&String> = self.0.iter().map(|event| &event.id).chain(now.keys()).collect();
        let differs = |id: &String| {
            let events = self.of(id);
            let count = |action| events.iter().filter(|event| event.action == action).count();
            let is_lost = untold && count(Action::Die) > 0 && !now.contains_key(id);
            let is_there = count(Action::Create) == 1 && count(Action::Destroy) == 0 && !is_lost;
            // containerd's shim ends with its sandbox, at times before it has told of the sandbox's end.
            let has_no_end =
                events.first().is_some_and(|event| event.container() == "POD") && now.get(id) != Some(&true);
            let runs = count(Action::Start) > count(Action::Die) && !has_no_end;
            let now = (now.contains_key(id), now.get(id) == Some(&true));
            let actions: Vec<_> = events.iter().map(|event| event.action).collect();
            ((is_there, runs) != now).then(|| format!("{id} (is there, runs): {now:?}, but told: {actions:?}"))
        };
        ids.into_iter().filter_map(differs).collect()
    }

    /// What happened to one container.
    pub fn of(&self, id: &str) -> Vec<Event> {
        self.0.iter().filter(|event| event.id == id).cloned().collect()
    }

    /// Every time a container of this name in its pod had this happen to it.
    pub fn each(&self, action: Action, container: &str) -> Vec<Event> {
        self.0.iter().filter(|e| e.action == action && e.container() == container).cloned().collect()
    }

    /// The one such event.
    pub fn one(&self, action: Action, id: &str) -> Event {
        let all: Vec<&Event> = self.0.iter().filter(|e| e.action == action && e.id == id).collect();
        assert_eq!(all.len(), 1, "{action:?} of {id}: {self:#?}");
        all[0].clone()
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.0
    }
}
