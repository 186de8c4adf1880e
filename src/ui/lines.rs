//! Events as lines: one a change, nothing that moves, so that they can be kept in a file.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::event::{Away, Event, Reporter, seconds};
use crate::yaml;

/// Plain lines with kubeadm's `[phase]` in front.
pub struct Plain<W: Write + Send> {
    state: Mutex<PlainState<W>>,
}

struct PlainState<W> {
    out: W,
    /// The last line about each image and component, so that only changes are said.
    said: HashMap<String, String>,
    /// The phase that began last, to which what components do belongs.
    phase: String,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `out`, line by line.
    pub fn new(out: W) -> Self {
        Self { state: Mutex::new(PlainState { out, said: HashMap::new(), phase: "wait-control-plane".into() }) }
    }
}

impl<W: Write + Send> Reporter for Plain<W> {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::PhaseStarted { phase, .. } = &event {
            state.phase = group(phase).to_owned();
        }
        let Some(line) = line(&event, &state.phase) else { return };
        if let Some(key) = key(&event)
            && state.said.insert(key, line.clone()).as_ref() == Some(&line)
        {
            return;
        }
        // A closed stdout must not stop the machine's set-up half way.
        let _ = writeln!(state.out, "{line}").and_then(|()| state.out.flush());
    }
}

/// The thing an event is about, where more than one event may say the same about it.
fn key(event: &Event) -> Option<String> {
    match event {
        Event::Pull { image, .. } => Some(format!("image {image}")),
        Event::Component { name, .. } => Some(format!("component {name}")),
        _ => None,
    }
}

/// The line an event is worth while `running` is the phase, None for those that only move a bar.
fn line(event: &Event, running: &str) -> Option<String> {
    let tag = |phase: &str| format!("[{}]", group(phase));
    Some(match event {
        Event::PhaseStarted { phase, title } => format!("{} {title}", tag(phase)),
        Event::PhaseDone { phase, changed: false, .. } => format!("{}already in place", tag_all(phase)),
        // Where lines are printed, the key is in what the phase has to say in the end.
        Event::PhaseDone { changed: true, .. } | Event::CertificateKey { .. } => return None,
        Event::PhaseSkipped { phase, reason } => format!("{}skipped: {reason}", tag_all(phase)),
        Event::Note { phase: Some(phase), text } => format!("{} {text}", tag(phase)),
        Event::Note { phase: None, text } => text.clone(),
        Event::Warning { phase: Some(phase), text } => format!("{} Warning: {text}", tag(phase)),
        Event::Warning { phase: None, text } => format!("Warning: {text}"),
        Event::Pull { image, current, done: true, .. } if *current > 0 => {
            format!("[images] Pulled {image} ({})", size(*current))
        }
        Event::Pull { image, done: true, .. } => format!("[images] Pulled {image}"),
        Event::Pull { image, .. } => format!("[images] Pulling {image}"),
        Event::Component { name, .. } => format!("[{running}] {name}: {}", component(event)),
        Event::Replacement { name, .. } => format!("[{running}] {name} {}", replacement(event)),
        Event::ApiAway(away) => format!("[upgrade] {}", api_away(*away)),
    })
}

/// kubeadm prints the group of a phase: `certs` of `certs/ca`.
fn group(phase: &str) -> &str {
    phase.split_once('/').map_or(phase, |(group, _)| group)
}

/// `[certs] ca: ` of `certs/ca`.
fn tag_all(phase: &str) -> String {
    match phase.split_once('/') {
        Some((group, child)) => format!("[{group}] {child}: "),
        None => format!("[{phase}] "),
    }
}

/// State and detail of a component.
pub(super) fn component(event: &Event) -> String {
    match event {
        Event::Component { state, detail: Some(detail), .. } => format!("{state}, {detail}"),
        Event::Component { state, .. } => state.clone(),
        _ => String::new(),
    }
}

/// From where to where a component goes, how far that is, and the seconds.
pub(super) fn replacement(event: &Event) -> String {
    match event {
        Event::Replacement { from, to, step, millis, .. } => {
            format!("{from} -> {to}: {}, {:.1} s", step.words(), seconds(*millis))
        }
        _ => String::new(),
    }
}

/// For how long the API server was away.
pub(super) fn api_away(away: Away) -> String {
    format!("API server not reachable for {away}")
}

/// Bytes for people: `37.5 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Every event as it is, one JSON text a line (or one YAML document each).
pub struct JsonLines<W: Write + Send> {
    out: Mutex<W>,
    encode: fn(&Event) -> Option<String>,
}

impl<W: Write + Send> JsonLines<W> {
    /// One JSON text a line.
    pub fn json(out: W) -> Self {
        Self { out: Mutex::new(out), encode: |event| serde_json::to_string(event).ok().map(|text| text + "\n") }
    }

    /// One YAML document an event, each begun with `---`.
    pub fn yaml(out: W) -> Self {
        Self { out: Mutex::new(out), encode: |event| yaml::to_string(event).ok().map(|text| format!("---\n{text}")) }
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn event(&self, event: Event) {
        let Some(text) = (self.encode)(&event) else { return };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // As above: the reader is gone, the work goes on.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::ReplacementStep;

    /// A little of everything, as an init on a fresh machine would say it.
    pub(in crate::ui) fn story() -> Vec<Event> {
        let pull = |current, done| Event::Pull {
            image: "registry.k8s.io/etcd:3.6.5-0".into(),
            current,
            total: Some(37_500_000),
            done,
        };
        let etcd = |state: &str, healthy, detail: Option<&str>| Event::Component {
            name: "etcd".into(),
            state: state.into(),
            healthy,
            detail: detail.map(str::to_owned),
        };
        let started = |phase: &str, title: &str| Event::PhaseStarted { phase: phase.into(), title: title.into() };
        let done = |phase: &str, changed| Event::PhaseDone { phase: phase.into(), changed, millis: 12 };
        vec![
            started("preflight", "Checking the machine"),
            Event::Warning { phase: Some("preflight".into()), text: "swap is on".into() },
            pull(0, false),
            pull(20_000_000, false),
            pull(37_500_000, true),
            done("preflight", true),
            started("certs", "Issuing certificates"),
            started("certs/ca", "Generating \"ca\" certificate and key"),
            done("certs/ca", true),
            started("certs/sa", "Generating \"sa\" key and public key"),
            done("certs/sa", false),
            done("certs", true),
            Event::PhaseSkipped { phase: "etcd".into(), reason: "--skip-phases".into() },
            started("wait-control-plane", "Waiting for the control plane"),
            etcd("waiting", false, Some("ContainerCreating")),
            etcd("waiting", false, Some("ContainerCreating")),
            etcd("healthy", true, None),
            done("wait-control-plane", true),
            Event::Note { phase: None, text: "Your control plane is up.".into() },
        ]
    }

    /// One step of etcd's replacement.
    pub(in crate::ui) fn step(step: ReplacementStep, millis: u64) -> Event {
        Event::Replacement { name: "etcd".into(), from: "3.6.8-0".into(), to: "3.7.0-0".into(), step, millis }
    }

    #[test]
    fn plain_lines_say_each_change_once() {
        let plain = Plain::new(Vec::new());
        story().into_iter().for_each(|event| plain.event(event));
        let text = String::from_utf8(plain.state.into_inner().unwrap().out).unwrap();
        insta::assert_snapshot!(text, @r#"
        [preflight] Checking the machine
        [preflight] Warning: swap is on
        [images] Pulling registry.k8s.io/etcd:3.6.5-0
        [images] Pulled registry.k8s.io/etcd:3.6.5-0 (37.5 MB)
        [certs] Issuing certificates
        [certs] Generating "ca" certificate and key
        [certs] Generating "sa" key and public key
        [certs] sa: already in place
        [etcd] skipped: --skip-phases
        [wait-control-plane] Waiting for the control plane
        [wait-control-plane] etcd: waiting, ContainerCreating
        [wait-control-plane] etcd: healthy
        Your control plane is up.
        "#);
    }

    #[test]
    fn json_lines_carry_every_event_whole() {
        let lines = JsonLines::json(Vec::new());
        story().into_iter().for_each(|event| lines.event(event));
        let text = String::from_utf8(lines.out.into_inner().unwrap()).unwrap();
        assert_eq!(text.lines().count(), story().len());
        let head: Vec<&str> = text.lines().take(3).collect();
        insta::assert_snapshot!(head.join("\n"), @r#"
        {"event":"phaseStarted","phase":"preflight","title":"Checking the machine"}
        {"event":"warning","phase":"preflight","text":"swap is on"}
        {"event":"pull","image":"registry.k8s.io/etcd:3.6.5-0","current":0,"total":37500000,"done":false}
        "#);
    }

    #[test]
    fn yaml_documents_carry_the_same() {
        let lines = JsonLines::yaml(Vec::new());
        lines.event(Event::Note { phase: None, text: "yes".into() });
        let text = String::from_utf8(lines.out.into_inner().unwrap()).unwrap();
        assert!(text.starts_with("---\nevent: note\n"), "{text}");
    }

    #[test]
    fn a_replacement_and_how_long_the_api_server_was_away_are_lines() {
        let plain = Plain::new(Vec::new());
        plain.event(Event::PhaseStarted { phase: "upgrade/etcd".into(), title: "etcd: r/a -> r/b".into() });
        plain.event(step(ReplacementStep::Swap, 12));
        plain.event(step(ReplacementStep::Done, 1440));
        for (millis, times, at_least) in [(0, 0, false), (1130, 1, false), (1960, 2, true)] {
            plain.event(Event::ApiAway(Away { millis, times, at_least }));
        }
        let text = String::from_utf8(plain.state.into_inner().unwrap().out).unwrap();
        insta::assert_snapshot!(text, @r#"
        [upgrade] etcd: r/a -> r/b
        [upgrade] etcd 3.6.8-0 -> 3.7.0-0: replacing it, 0.0 s
        [upgrade] etcd 3.6.8-0 -> 3.7.0-0: replaced, 1.4 s
        [upgrade] API server not reachable for 0 s
        [upgrade] API server not reachable for 1.1 s
        [upgrade] API server not reachable for at least 2.0 s, 2 times
        "#);
        let json = serde_json::to_string(&Event::ApiAway(Away { millis: 1130, times: 1, at_least: false })).unwrap();
        assert_eq!(json, r#"{"event":"apiAway","millis":1130,"times":1,"atLeast":false}"#);
    }

    #[test]
    fn sizes_read_well() {
        let sizes: Vec<String> = [0, 999, 1_000, 37_500_000, 1_234_567_890].into_iter().map(size).collect();
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "37.5 MB", "1.23 GB"]);
    }
}
