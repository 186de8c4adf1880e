//! Events on a terminal: what is done stays as a line, what runs has a live line below.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::{api_away, component, replacement, size};
use crate::event::{Event, ReplacementStep, Reporter};

/// The one place on stderr where live lines are drawn: log lines and errors have to know it to get out of their way.
static SCREEN: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Runs `write`, which writes to stderr, with the live lines out of the way.
pub(super) fn suspended<T>(write: impl FnOnce() -> T) -> T {
    SCREEN.suspend(write)
}

/// Live lines on stderr.
pub struct Terminal {
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Running phases, outermost first, with their titles.
    phases: Vec<(String, String, ProgressBar)>,
    pulls: HashMap<String, ProgressBar>,
    /// In the order in which they were first heard of.
    components: Vec<(String, bool, ProgressBar)>,
}

impl Terminal {
    /// On stderr.
    pub fn stderr() -> Self {
        Self::on(SCREEN.clone())
    }

    fn on(screen: MultiProgress) -> Self {
        Self { screen, state: Mutex::default() }
    }

    /// A line that stays.
    fn keep(&self, text: impl AsRef<str>) {
        // The screen is there to be looked at; when it is gone there is nothing to show.
        let _ = self.screen.println(text);
    }

    fn live(&self, style: &str, message: String) -> ProgressBar {
        let bar = self.screen.add(ProgressBar::new_spinner().with_style(style_of(style)).with_message(message));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn started(&self, state: &mut State, phase: String, title: String) {
        let style = if phase.contains('/') { CHILD } else { PHASE };
        let bar = self.live(style, title.clone());
        state.phases.push((phase, title, bar));
    }

    fn done(&self, state: &mut State, phase: &str, changed: bool, millis: u64) {
        let Some(at) = state.phases.iter().position(|(name, ..)| name == phase) else { return };
        let (_, title, bar) = state.phases.remove(at);
        self.screen.remove(&bar);
        // Children only live below their group; the group's own line is the one that stays.
        if !phase.contains('/') {
            for (_, _, bar) in state.components.drain(..) {
                self.screen.remove(&bar);
            }
            let outcome = if changed { seconds(millis) } else { "already in place".to_owned() };
            self.keep(format!("✓ {title} ({outcome})"));
        }
    }

    fn pull(&self, state: &mut State, image: String, current: u64, total: Option<u64>, done: bool) {
        if done {
            if let Some(bar) = state.pulls.remove(&image) {
                self.screen.remove(&bar);
            }
            let size = if current > 0 { format!(" ({})", size(current)) } else { String::new() };
            return self.keep(format!("  pulled {image}{size}"));
        }
        let bar = state.pulls.entry(image).or_insert_with_key(|image| self.live(PULL_UNKNOWN, image.clone()));
        if let Some(total) = total.filter(|total| *total > 0)
            && bar.length() != Some(total)
        {
            bar.set_length(total);
            bar.set_style(style_of(PULL));
        }
        bar.set_position(current);
    }

    fn component(&self, state: &mut State, event: &Event) {
        let Event::Component { name, healthy, .. } = event else { return };
        let at = state.components.iter().position(|(known, ..)| known == name).unwrap_or_else(|| {
            state.components.push((name.clone(), false, self.live(COMPONENT, String::new())));
            state.components.len() - 1
        });
        let Some((_, was, bar)) = state.components.get_mut(at) else { return };
        bar.set_style(style_of(if *healthy { COMPONENT_HEALTHY } else { COMPONENT }));
        bar.set_message(format!("{name:<24} {}", component(event)));
        *was = *healthy;
    }

    /// What is replaced stays as a line; the phase of what is not yet says how far it is.
    fn replacement(&self, state: &mut State, event: &Event) {
        let Event::Replacement { name, step, .. } = event else { return };
        let text = format!("{name} {}", replacement(event));
        if *step == ReplacementStep::Done {
            return self.keep(format!("  ✓ {text}"));
        }
        let own = state.phases.iter_mut().find(|(phase, ..)| phase.split_once('/').is_some_and(|(_, own)| own == name));
        if let Some((_, _, bar)) = own {
            bar.set_message(text);
        }
    }
}

impl Reporter for Terminal {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::PhaseStarted { phase, title } => self.started(&mut state, phase, title),
            Event::PhaseDone { phase, changed, millis } => self.done(&mut state, &phase, changed, millis),
            Event::PhaseSkipped { phase, reason } => self.keep(format!("- {phase} skipped: {reason}")),
            Event::Note { phase: Some(_), text } => self.keep(format!("  {text}")),
            Event::Note { phase: None, text } => self.keep(text),
            Event::Warning { text, .. } => self.keep(format!("! {text}")),
            Event::Pull { image, current, total, done } => self.pull(&mut state, image, current, total, done),
            Event::CertificateKey { .. } => {}
            Event::Component { .. } => self.component(&mut state, &event),
            Event::Replacement { .. } => self.replacement(&mut state, &event),
            Event::ApiAway(away) => self.keep(format!("  {}", api_away(away))),
        }
    }
}

/// What still runs when the reporter goes has failed or was given up: it stays on the screen as such.
impl Drop for Terminal {
    fn drop(&mut self) {
        let mut state = std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (_, healthy, bar) in state.components.drain(..) {
            let line = bar.message();
            self.screen.remove(&bar);
            self.keep(format!("  {} {line}", if healthy { "✓" } else { "✗" }));
        }
        for (_, bar) in state.pulls.drain() {
            self.screen.remove(&bar);
        }
        for (phase, title, bar) in state.phases.drain(..) {
            self.screen.remove(&bar);
            self.keep(format!("{}✗ {title}", if phase.contains('/') { "  " } else { "" }));
        }
    }
}

const PHASE: &str = "{spinner} {msg} {elapsed:.dim}";
const CHILD: &str = "  {spinner} {msg} {elapsed:.dim}";
const PULL_UNKNOWN: &str = "  {spinner} {msg} {bytes}";
const PULL: &str = "  {spinner} {msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec}";
const COMPONENT: &str = "  {spinner} {wide_msg}";
const COMPONENT_HEALTHY: &str = "  ✓ {wide_msg}";

fn style_of(template: &str) -> ProgressStyle {
    // Only a wrong template fails, and a test tries them all.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ")
}

fn seconds(millis: u64) -> String {
    format!("{:.1} s", millis as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;
    use crate::ui::lines::tests::{step, story};

    /// Keeps whatever is written, without the moves in between.
    #[derive(Debug, Clone, Default)]
    struct Tape(Arc<Mutex<String>>);

    impl TermLike for Tape {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("\n")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn played(events: Vec<Event>) -> String {
        let tape = Tape::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(tape.clone()), 255);
        let terminal = Terminal::on(MultiProgress::with_draw_target(target));
        events.into_iter().for_each(|event| terminal.event(event));
        drop(terminal);
        let text = tape.0.lock().unwrap().clone();
        // A kept line is padded with blanks to the width rather than ended.
        let chars: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let rows = chars.iter().flat_map(|line| line.chunks(100)).map(|row| row.iter().collect::<String>());
        rows.map(|row| row.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_template_is_valid() {
        for template in [PHASE, CHILD, PULL_UNKNOWN, PULL, COMPONENT, COMPONENT_HEALTHY] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn what_is_done_stays_as_a_line() {
        let text = played(story());
        for line in [
            "✓ Checking the machine (0.0 s)",
            "! swap is on",
            "  pulled registry.k8s.io/etcd:3.6.5-0 (37.5 MB)",
            "✓ Issuing certificates (0.0 s)",
            "- etcd skipped: --skip-phases",
            "✓ Waiting for the control plane (0.0 s)",
            "Your control plane is up.",
        ] {
            assert_eq!(text.lines().filter(|kept| *kept == line).count(), 1, "{line:?} in\n{text}");
        }
        assert!(!text.contains('✗'), "{text}");
    }

    #[test]
    fn a_component_that_is_replaced_and_the_time_without_an_api_server_stay_as_lines() {
        let text = played(vec![
            Event::PhaseStarted { phase: "upgrade/etcd".into(), title: "etcd: a -> b".into() },
            step(ReplacementStep::Swap, 10),
            step(ReplacementStep::Done, 1440),
            Event::PhaseDone { phase: "upgrade/etcd".into(), changed: true, millis: 1450 },
            Event::ApiAway(crate::event::Away { millis: 1130, times: 1, at_least: false }),
        ]);
        for line in ["  ✓ etcd 3.6.8-0 -> 3.7.0-0: replaced, 1.4 s", "  API server not reachable for 1.1 s"] {
            assert_eq!(text.lines().filter(|kept| *kept == line).count(), 1, "{line:?} in\n{text}");
        }
    }

    #[test]
    fn what_was_not_done_is_marked_when_the_reporter_goes() {
        let text = played(vec![
            Event::PhaseStarted { phase: "wait-control-plane".into(), title: "Waiting".into() },
            Event::Component { name: "etcd".into(), state: "healthy".into(), healthy: true, detail: None },
            Event::Component {
                name: "kube-scheduler".into(),
                state: "crashed".into(),
                healthy: false,
                detail: Some("exit code 1".into()),
            },
        ]);
        let kept: Vec<&str> = text.lines().filter(|line| line.contains('✗')).collect();
        assert_eq!(kept, ["  ✗ kube-scheduler           crashed, exit code 1", "✗ Waiting"]);
    }
}
