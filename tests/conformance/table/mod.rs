//! The table of behaviours: what a kubelet does with a static pod, whether the agent does the same, and the test that
//! shows it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use futures::future::LocalBoxFuture;
use kubeboot::testing::real::command::put;

use crate::node::Node;

mod rows;

pub use rows::ROWS;

/// Where the table is in the repository.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/TABLE.md");

/// One behaviour.
pub struct Row {
    number: u32,
    behaviour: &'static str,
    verdict: Verdict,
    note: &'static str,
    /// A unit test, with a clock of its own, of what cannot be waited for.
    unit: Option<&'static str>,
    /// An end-to-end test, of what only a cluster shows.
    cluster: Option<&'static str>,
    /// An end-to-end test that shows it on containerd.
    cluster_on_containerd: Option<&'static str>,
    /// What is another on containerd than on Docker, if anything is.
    containerd: &'static str,
    /// The test, on Docker and on containerd.
    pub test: Option<Test>,
}

/// How the agent stands to the kubelet in a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The same.
    Same,
    /// Different on purpose; the note says why.
    Different,
}

/// A test of a behaviour.
#[derive(Clone, Copy)]
pub struct Test {
    /// Its name, as the harness lists it.
    pub name: &'static str,
    /// What it does.
    pub body: Body,
    /// About how long it takes, where that is long.
    pub seconds: u32,
}

type Body = for<'a> fn(&'a mut Node) -> LocalBoxFuture<'a, ()>;

impl Row {
    const fn new(number: u32, behaviour: &'static str) -> Self {
        Self {
            number,
            behaviour,
            verdict: Verdict::Same,
            note: "",
            unit: None,
            cluster: None,
            cluster_on_containerd: None,
            containerd: "",
            test: None,
        }
    }

    const fn test(self, name: &'static str, body: Body) -> Self {
        Self { test: Some(Test { name, body, seconds: 0 }), ..self }
    }

    /// More words on how the agent does it.
    const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    const fn different(self, why: &'static str) -> Self {
        Self { verdict: Verdict::Different, note: why, ..self }
    }

    const fn unit(self, name: &'static str) -> Self {
        Self { unit: Some(name), ..self }
    }

    const fn cluster(self, name: &'static str) -> Self {
        Self { cluster: Some(name), ..self }
    }

    /// It holds on containerd too, in a way of its own.
    const fn on_containerd(self, how: &'static str) -> Self {
        Self { containerd: how, ..self }
    }

    const fn cluster_on_containerd(self, name: &'static str) -> Self {
        Self { cluster_on_containerd: Some(name), ..self }
    }

    /// Where it has been shown. What a unit test shows is no runtime's matter.
    fn runtimes(&self) -> String {
        let is_on_both = self.test.is_some() || self.cluster_on_containerd.is_some();
        match (is_on_both, self.cluster, self.containerd) {
            (true, _, "") => "both".to_owned(),
            (true, _, how) => format!("both; on containerd {how}"),
            (false, Some(_), _) => "Docker".to_owned(),
            (false, None, _) => "any".to_owned(),
        }
    }

    /// About how long the test waits by design.
    const fn seconds(self, seconds: u32) -> Self {
        match self.test {
            Some(test) => Self { test: Some(Test { seconds, ..test }), ..self },
            None => self,
        }
    }
}

/// Every number is there once, and every unit test that is named exists.
pub fn check_numbers() -> Result<(), String> {
    let rows = ROWS;
    let below = |directory| {
        rust_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).map_err(|error| error.to_string())
    };
    let (source, cluster) = (below("src")?, below("tests/e2e")?);
    let numbers: BTreeSet<u32> = rows.iter().map(|row| row.number).collect();
    if numbers.len() != rows.len() || !rows.is_sorted_by_key(|row| row.number) {
        return Err(format!("{} rows for {} numbers, which must rise", rows.len(), numbers.len()));
    }
    for row in rows {
        if let Some(test) = &row.test
            && !test.name.starts_with(&format!("b{:03}_", row.number))
        {
            return Err(format!("{} is named by the row of {}", test.name, row.number));
        }
        if [row.unit, row.cluster].iter().all(Option::is_none) && row.test.is_none() {
            return Err(format!("{} has no test", row.number));
        }
        if (row.verdict != Verdict::Same) && row.note.is_empty() {
            return Err(format!("{} does not say why it is {:?}", row.number, row.verdict));
        }
        let ends = [row.cluster, row.cluster_on_containerd].map(|name| (name, "end-to-end", &cluster));
        for (name, kind, text) in [(row.unit, "unit", &source)].into_iter().chain(ends) {
            if let Some(name) = name
                && !text.contains(&format!("fn {name}("))
            {
                return Err(format!("there is no {kind} test {name}, which {} names", row.number));
            }
        }
    }
    Ok(())
}

/// Every Rust file below a directory, as one text.
fn rust_below(directory: &Path) -> io::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            text += &rust_below(&path)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            text += &fs::read_to_string(path)?;
        }
    }
    Ok(text)
}

/// The table in the repository is this one; `UPDATE_TABLE=1` writes it.
pub fn check_file() -> Result<(), String> {
    let table = render(ROWS);
    if std::env::var_os("UPDATE_TABLE").is_some() {
        put(Path::new(FILE), table.as_bytes());
        return Ok(());
    }
    let there = fs::read_to_string(FILE).unwrap_or_default();
    let stale = || format!("{FILE} is stale: UPDATE_TABLE=1 cargo test --test conformance -- table");
    (there == table).then_some(()).ok_or_else(stale)
}

fn render(rows: &[Row]) -> String {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let mut text = format!(
        "# What a kubelet does with static pods, and what the agent does\n\n\
         Made from [table/rows.rs](table/rows.rs); every `b` test runs the agent as a process against a real \
         Docker daemon, and again against containerd; the end-to-end tests need a whole control plane. \
         {} behaviours: {} the same, {} different on purpose, none missing.\n\n\
         | # | behaviour | agent | on Docker and containerd | test |\n|---|---|---|---|---|\n",
        rows.len(),
        count(Verdict::Same),
        count(Verdict::Different),
    );
    for row in rows {
        let verdict = match row.verdict {
            Verdict::Same => "same",
            Verdict::Different => "different on purpose",
        };
        let note = if row.note.is_empty() { String::new() } else { format!(": {}", row.note) };
        let real = row.test.iter().map(|test| format!("`{}`", test.name));
        let unit = row.unit.iter().map(|name| format!("unit test `{name}`"));
        let cluster =
            row.cluster.iter().chain(&row.cluster_on_containerd).map(|name| format!("end-to-end test `{name}`"));
        let tests: Vec<String> = real.chain(cluster).chain(unit).collect();
        let (number, behaviour, runtimes) = (row.number, row.behaviour, row.runtimes());
        let _ = writeln!(text, "| {number} | {behaviour} | {verdict}{note} | {runtimes} | {} |", tests.join(", "));
    }
    text
}
