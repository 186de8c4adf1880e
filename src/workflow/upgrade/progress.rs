//! What is shown of an upgrade on its way: how far each component is, and for how long the API server was away.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::journal::Journal;
use super::manifest::image_version;
use crate::event::{Away, Event, ReplacementStep, Reporter};
use crate::host::clock::Instant;
use crate::workflow::machine::cluster::{Api, Ping};

/// The pause between two questions to the API server: what is measured is off by so much.
const PACE: Duration = Duration::from_millis(50);
/// An API server that leaves more time than this between two answers was away: one that waits for its etcd refuses nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// When a question is given up and asked again: its connection may be one to a process that is gone.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// A component on its way from one version to another.
pub(super) struct Going<'a> {
    reporter: &'a dyn Reporter,
    name: &'static str,
    from: String,
    to: String,
    begun: Instant,
}

impl<'a> Going<'a> {
    /// It begins now. Versions are those of the images; where they say none, or the same, the images stand for them.
    pub fn begin(reporter: &'a dyn Reporter, name: &'static str, (old, new): (&str, &str)) -> Self {
        let (from, to) = match (image_version(old), image_version(new)) {
            (Some(from), Some(to)) if from != to || old == new => (from, to),
            _ => (old.to_owned(), new.to_owned()),
        };
        Self { reporter, name, from, to, begun: Instant::now() }
    }

    /// It has come to this step.
    pub fn at(&self, step: ReplacementStep) {
        let (name, from, to) = (self.name.to_owned(), self.from.clone(), self.to.clone());
        self.reporter.event(Event::Replacement { name, from, to, step, millis: millis(self.begun.elapsed()) });
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Does `work`, and adds to `away` for how long the API server did not answer meanwhile; None measures nothing.
pub(super) async fn watched<T>(api: Api<'_>, away: &mut Option<Away>, work: impl Future<Output = T>) -> T {
    let (Some(away), Some(ping)) = (away.as_mut(), api.cluster.ping(api.site)) else { return work.await };
    let mut watch = Watch { answered: Instant::now(), is_away: false, away };
    let mut work = pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        never = watch.forever(&ping) => never,
    };
    if watch.is_away {
        watch.is_back();
    }
    done
}

struct Watch<'w> {
    /// When it has answered last.
    answered: Instant,
    is_away: bool,
    away: &'w mut Away,
}

impl Watch<'_> {
    /// The API server reports no event for it.
    async fn forever<T>(&mut self, ping: &Ping<'_>) -> T {
        loop {
            match tokio::time::timeout(GIVEN_UP, ping()).await {
                Ok(true) => self.is_back(),
                _ => self.is_away = true,
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn is_back(&mut self) {
        let gap = self.answered.elapsed();
        if std::mem::take(&mut self.is_away) || gap > PATIENCE {
            self.away.millis = self.away.millis.saturating_add(millis(gap));
            self.away.times += 1;
        }
        self.answered = Instant::now();
    }
}

/// Reports for how long the API server was away, where that was measured.
pub(super) fn report_away(reporter: &dyn Reporter, journal: &Journal) {
    if let Some(away) = journal.api_away {
        reporter.event(Event::ApiAway(away));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// An API server that answers as `when` says, asked for so many milliseconds.
    async fn seen(asked_for: u64, when: impl Fn(u64) -> Option<bool> + Send + Sync) -> Away {
        let (begun, mut away) = (Instant::now(), Away::default());
        let ping: Ping<'_> = Box::new(|| {
            let answer = when(millis(begun.elapsed()));
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
            .boxed()
        });
        let mut watch = Watch { answered: begun, is_away: false, away: &mut away };
        let _ = tokio::time::timeout(Duration::from_millis(asked_for), watch.forever::<()>(&ping)).await;
        away
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_two_answers_with_a_failure_between_them_counts() {
        assert_eq!(seen(3000, |_| Some(true)).await, Away::default());
        let refused = seen(5000, |at| Some(!(1000..2100).contains(&at) && !(3000..3200).contains(&at))).await;
        assert_eq!(refused.times, 2);
        assert!((1300..1420).contains(&refused.millis), "{refused:?}");
        let hanging = seen(5000, |at| (!(1000..2100).contains(&at)).then_some(true)).await;
        assert_eq!(hanging.times, 1);
        // Asked again when the question was given up.
        assert!((2000..2150).contains(&hanging.millis), "{hanging:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_counts_and_one_that_is_only_slow_does_not() {
        for (takes, expected) in [(300, 0..1), (900, 900..1000)] {
            let mut away = Away::default();
            let begun = Instant::now();
            let ping: Ping<'_> = Box::new(|| {
                let is_slow = (1000..1050).contains(&millis(begun.elapsed()));
                async move {
                    tokio::time::sleep(Duration::from_millis(if is_slow { takes } else { 1 })).await;
                    true
                }
                .boxed()
            });
            let mut watch = Watch { answered: begun, is_away: false, away: &mut away };
            let _ = tokio::time::timeout(Duration::from_secs(4), watch.forever::<()>(&ping)).await;
            assert!(expected.contains(&away.millis), "{takes}: {away:?}");
        }
    }

    #[test]
    fn versions_are_those_of_the_images_where_these_say_any() {
        struct Last(std::sync::Mutex<Option<Event>>);
        impl Reporter for Last {
            fn event(&self, event: Event) {
                *self.0.lock().unwrap() = Some(event);
            }
        }
        for (images, expected) in [
            (("r/etcd:3.6.8-0", "r/etcd:3.7.0-0"), ("3.6.8-0", "3.7.0-0")),
            (("r/x:v1.36.2", "r/x:v1.36.2"), ("v1.36.2", "v1.36.2")),
            (("r/x:v1.36.2", "other/x:v1.36.2"), ("r/x:v1.36.2", "other/x:v1.36.2")),
            (("r/x@sha256:ab", "r/x:v1.36.2"), ("r/x@sha256:ab", "r/x:v1.36.2")),
        ] {
            let last = Last(std::sync::Mutex::default());
            Going::begin(&last, "etcd", images).at(ReplacementStep::Swap);
            let event = last.0.lock().unwrap().take().unwrap();
            let Event::Replacement { from, to, step: ReplacementStep::Swap, .. } = event else { panic!("{event:?}") };
            assert_eq!((from.as_str(), to.as_str()), expected);
        }
    }
}
