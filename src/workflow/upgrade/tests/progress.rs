//! What is shown of an upgrade: how far each component is, and for how long the API server was away.

use super::*;
use crate::event::{Away, Event, ReplacementStep};

/// Keeps events, and has the API server fall silent when the first component is swapped.
struct Silencing {
    silent: Arc<AtomicBool>,
    seen: Mutex<Vec<Event>>,
}

impl Reporter for Silencing {
    fn event(&self, event: Event) {
        let mut seen = self.seen.lock().unwrap();
        let is_swap = |event: &Event| matches!(event, Event::Replacement { step: ReplacementStep::Swap, .. });
        if is_swap(&event) && !seen.iter().any(is_swap) {
            self.silent.store(true, Ordering::SeqCst);
        }
        seen.push(event);
    }
}

/// An upgrade of the API server and the scheduler to these images, during which the API server is silent for a while.
async fn seen(images: [&'static str; 2], silent_for: Duration) -> (Outcome, Bench, Vec<Event>) {
    let bench = Bench::new();
    let reporter = Arc::new(Silencing { silent: Arc::clone(&bench.shelf.silent), seen: Mutex::default() });
    let bench = Bench { reporter: reporter.clone(), ..bench };
    let [server, scheduler] = images;
    let images: BTreeMap<_, _> = COMPONENTS.iter().map(|component| (*component, "r/x:v1")).collect();
    let images = images.into_iter().chain([("kube-apiserver", server), ("kube-scheduler", scheduler)]).collect();
    let steps = bench.steps(&images);
    let back = async {
        tokio::time::sleep(silent_for).await;
        bench.shelf.silent.store(false, Ordering::SeqCst);
    };
    let (outcome, ()) = tokio::join!(bench.apply(&steps, None), back);
    let events = reporter.seen.lock().unwrap().clone();
    (outcome.unwrap(), bench, events)
}

fn away(events: &[Event]) -> Vec<Away> {
    let away = events.iter().filter_map(|event| match event {
        Event::ApiAway(away) => Some(*away),
        _ => None,
    });
    away.collect()
}

#[tokio::test(start_paused = true)]
async fn each_component_says_where_it_comes_from_where_it_goes_and_how_far_it_is() {
    let (outcome, bench, events) = seen(["r/x:v2", "r/x:v2"], Duration::from_millis(1200)).await;
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    let steps: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Replacement { name, from, to, step, millis } => {
                Some((name.as_str(), from.as_str(), to.as_str(), *step, *millis / 1000))
            }
            _ => None,
        })
        .collect();
    use ReplacementStep::{Checks, Done, Swap};
    let of = |name, step, seconds| (name, "r/x:v1", "r/x:v2", step, seconds);
    assert_eq!(
        steps,
        [
            of("kube-apiserver", Swap, 0),
            of("kube-apiserver", Checks, 0),
            of("kube-apiserver", Done, 1),
            of("kube-scheduler", Swap, 0),
            of("kube-scheduler", Checks, 0),
            of("kube-scheduler", Done, 0),
        ]
    );
    let [away] = away(&events)[..] else { panic!("{events:?}") };
    assert!(away.times == 1 && !away.at_least && (1150..1350).contains(&away.millis), "{away:?}");
    assert_eq!(Journal::read(&bench.tree()).unwrap().unwrap().api_away, Some(away));
}

#[tokio::test(start_paused = true)]
async fn the_time_counts_that_passes_until_everything_is_old_again() {
    let (outcome, _, events) = seen(["r/x:v2", "r/x:crash"], Duration::from_millis(1200)).await;
    assert_eq!(outcome.exit_code(), 2, "{outcome:?}");
    let [away] = away(&events)[..] else { panic!("{events:?}") };
    assert!((1150..1350).contains(&away.millis), "{away:?}");
    let back = events.iter().filter_map(|event| match event {
        Event::Replacement { name, from, to, step: ReplacementStep::Done, .. } if to == "r/x:v1" => {
            Some((name.as_str(), from.as_str()))
        }
        _ => None,
    });
    assert_eq!(back.collect::<Vec<_>>(), [("kube-apiserver", "r/x:v2"), ("kube-scheduler", "r/x:crash")]);
}

#[tokio::test(start_paused = true)]
async fn what_was_measured_before_an_attempt_was_cut_off_is_the_least_that_it_was() {
    let bench = Bench::new();
    let mut tree = bench.tree();
    let backup = PathBuf::from("/etc/kubernetes/tmp/kubeadm-backup-manifests-x");
    let mut journal = Journal::new("v2", "kubeboot upgrade apply v2", backup);
    (journal.api_answered, journal.api_away) = (true, Some(Away { millis: 700, times: 1, at_least: false }));
    journal.write(&mut tree).unwrap();
    let outcome = bench.run(&bench.work(&BTreeMap::new()), &mut tree).await.unwrap();
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    let away = Journal::read(&bench.tree()).unwrap().unwrap().api_away.unwrap();
    assert_eq!(away, Away { millis: 700, times: 1, at_least: true });
    assert_eq!(away.to_string(), "at least 0.7 s");
}

#[tokio::test(start_paused = true)]
async fn in_a_rollback_etcd_serves_again_before_any_other_component_is_touched() {
    let bench = super::etcd::bench(super::etcd::OLD, "r/x:v1");
    let reporter = Arc::new(Silencing { silent: Arc::default(), seen: Mutex::default() });
    let bench = Bench { reporter: reporter.clone(), ..bench };
    bench.apply(&super::etcd::steps(&bench, super::etcd::NEW, "r/x:v2"), None).await.unwrap();
    reporter.seen.lock().unwrap().clear();
    assert_eq!(bench.rollback().await.etcd_kept, None);
    let steps: Vec<(String, ReplacementStep)> = reporter
        .seen
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Replacement { name, step, .. } => Some((name.clone(), *step)),
            _ => None,
        })
        .collect();
    let of = |name: &str, step| (name.to_owned(), step);
    assert_eq!(steps[..2], [of("etcd", ReplacementStep::Swap), of("etcd", ReplacementStep::Done)]);
    assert_eq!(steps.len(), 2 * COMPONENTS.len());
}
