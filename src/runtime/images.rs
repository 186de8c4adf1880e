//! Having the images a node needs: which are here, and pulling those that are not.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, stream};

use super::{ContainerRuntime, ImageRecord, RuntimeError};
use crate::config::spec::PullPolicy;
use crate::event::{Event, Reporter};

/// How many images are pulled at once: enough to fill a line, few enough for a registry's limits.
const PULLS_AT_ONCE: usize = 3;

/// Why the images could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// Some are neither here nor to be had.
    #[error("{}", render(.0))]
    Missing(Vec<MissingImage>),
    /// The runtime could not be asked.
    #[error("cannot look for images")]
    Runtime(#[source] RuntimeError),
}

/// An image that could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingImage {
    /// The reference.
    pub reference: String,
    /// Where it was looked for and what was said there.
    pub tried: String,
}

impl fmt::Display for MissingImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reference, self.tried)
    }
}

fn render(missing: &[MissingImage]) -> String {
    let list: String = missing.iter().map(|image| format!("\n  {image}")).collect();
    let tag = missing.iter().find(|image| image.reference.contains("/kube-")).map(|image| &image.reference);
    let tag = tag.and_then(|reference| reference.rsplit_once(':')).map_or("VERSION", |(_, tag)| tag);
    format!(
        "cannot get {} image{}:{list}\nname a registry that has them with --image-repository, or make them out of local \
         binaries with `kubeboot images build --from-dir DIR --tag-version {tag}`",
        missing.len(),
        if missing.len() == 1 { "" } else { "s" },
    )
}

/// Each reference once, in order, with its image if that is present.
///
/// # Errors
/// The runtime's, at the first image it cannot be asked about.
pub async fn present(
    runtime: &dyn ContainerRuntime,
    references: &[String],
) -> Result<Vec<(String, Option<ImageRecord>)>, RuntimeError> {
    let mut found = Vec::new();
    for reference in once_each(references) {
        let image = runtime.image(&reference).await?;
        found.push((reference, image));
    }
    Ok(found)
}

/// Makes sure that every image is present: pulls the missing ones (all of them under `Always`, none under `Never`),
/// some at once, and reports bytes as [`Event::Pull`]. Returns those that were pulled, in order.
///
/// # Errors
/// [`ImagesError::Missing`] names every image that could not be had, after all were tried.
pub async fn ensure_images(
    runtime: &dyn ContainerRuntime,
    references: &[String],
    policy: PullPolicy,
    reporter: &dyn Reporter,
) -> Result<Vec<String>, ImagesError> {
    let attempts = stream::iter(once_each(references)).map(|reference| async move {
        let outcome = ensure(runtime, &reference, policy, reporter).await;
        (reference, outcome)
    });
    let (mut pulled, mut missing) = (Vec::new(), Vec::new());
    let mut attempts = attempts.buffered(PULLS_AT_ONCE);
    while let Some((reference, outcome)) = attempts.next().await {
        match outcome {
            Ok(true) => pulled.push(reference),
            Ok(false) => {}
            Err(Failure::Missing(tried)) => missing.push(MissingImage { reference, tried }),
            // Nothing else will be found there either.
            Err(Failure::Runtime(error)) => return Err(ImagesError::Runtime(error)),
        }
    }
    if missing.is_empty() { Ok(pulled) } else { Err(ImagesError::Missing(missing)) }
}

enum Failure {
    Missing(String),
    Runtime(RuntimeError),
}

/// Makes sure of one image; returns whether it was pulled.
async fn ensure(
    runtime: &dyn ContainerRuntime,
    reference: &str,
    policy: PullPolicy,
    reporter: &dyn Reporter,
) -> Result<bool, Failure> {
    if policy != PullPolicy::Always {
        match runtime.image(reference).await {
            Ok(Some(_)) => return Ok(false),
            Ok(None) => {}
            Err(error @ (RuntimeError::Unreachable { .. } | RuntimeError::Timeout { .. })) => {
                return Err(Failure::Runtime(error));
            }
            Err(error) => return Err(Failure::Missing(error.to_string())),
        }
    }
    if policy == PullPolicy::Never {
        return Err(Failure::Missing("not on this machine, and imagePullPolicy Never forbids to pull it".to_owned()));
    }
    let last = AtomicU64::new(0);
    let report = |current, total, done| {
        reporter.event(Event::Pull { image: reference.to_owned(), current, total, done });
    };
    report(0, None, false);
    let progress = |current, total| {
        last.store(current, Ordering::Relaxed);
        report(current, total, false);
    };
    match runtime.pull(reference, None, &progress).await {
        Ok(_) => {
            let bytes = last.load(Ordering::Relaxed);
            report(bytes, Some(bytes), true);
            Ok(true)
        }
        Err(error @ RuntimeError::Unreachable { .. }) => Err(Failure::Runtime(error)),
        Err(error) => {
            let message = match &error {
                RuntimeError::Pull { message, .. } => message.clone(),
                other => other.to_string(),
            };
            let here = if policy == PullPolicy::Always { "" } else { "not on this machine, and " };
            Err(Failure::Missing(format!("{here}{} says: {message}", registry(reference))))
        }
    }
}

/// Each once, in order of first appearance.
fn once_each(references: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    references.iter().filter(|reference| seen.insert(reference.as_str())).cloned().collect()
}

/// The registry a reference points to: its first part, if that can be a host.
fn registry(reference: &str) -> &str {
    let first = reference.split_once('/').map(|(first, _)| first);
    first.filter(|first| first.contains(['.', ':']) || *first == "localhost").unwrap_or("docker.io")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::testing::runtime::FakeRuntime;

    #[derive(Default)]
    struct Collected(Mutex<Vec<Event>>);

    impl Reporter for Collected {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    fn references(references: &[&str]) -> Vec<String> {
        references.iter().map(|reference| (*reference).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_missing_are_pulled_each_once_and_three_at_a_time() {
        let fake = FakeRuntime::new().with_image("r.io/here:1");
        let missing = ["r.io/a:1", "r.io/b:1", "r.io/c:1", "r.io/d:1"];
        for reference in missing {
            fake.registry_has(reference, Duration::from_secs(10));
        }
        let mut wanted = references(&missing);
        wanted.extend(references(&["r.io/here:1", "r.io/a:1"]));
        let (reporter, begin) = (Collected::default(), crate::host::clock::Instant::now());
        let pulled = ensure_images(&fake, &wanted, PullPolicy::IfNotPresent, &reporter).await.unwrap();
        assert_eq!(pulled, missing);
        assert_eq!(fake.calls_of("pull"), missing);
        assert_eq!(begin.elapsed().as_secs(), 20);
        let events = reporter.0.into_inner().unwrap();
        let done = events.iter().filter(|event| matches!(event, Event::Pull { done: true, .. })).count();
        assert_eq!(done, 4);
        let half = Event::Pull { image: "r.io/d:1".into(), current: 50, total: Some(100), done: false };
        assert!(events.contains(&half), "{events:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_names_every_image_where_it_was_looked_for_and_what_to_do() {
        let fake = FakeRuntime::new();
        fake.registry_has("registry.k8s.io/etcd:3.6", Duration::ZERO);
        let wanted = references(&[
            "registry.k8s.io/kube-apiserver:v1.36.2",
            "registry.k8s.io/etcd:3.6",
            "nginx:1",
            "x:5000/y:1",
        ]);
        let error = ensure_images(&fake, &wanted, PullPolicy::IfNotPresent, &crate::event::Silent).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot get 3 images:\
             \n  registry.k8s.io/kube-apiserver:v1.36.2: not on this machine, and registry.k8s.io says: manifest unknown\
             \n  nginx:1: not on this machine, and docker.io says: manifest unknown\
             \n  x:5000/y:1: not on this machine, and x:5000 says: manifest unknown\
             \nname a registry that has them with --image-repository, or make them out of local binaries with \
             `kubeboot images build --from-dir DIR --tag-version v1.36.2`"
        );
        assert!(fake.image("registry.k8s.io/etcd:3.6").await.unwrap().is_some(), "the others are had all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn never_asks_no_registry_and_always_asks_for_what_is_here() {
        let fake = FakeRuntime::new().with_image("a:1");
        fake.registry_has("a:1", Duration::ZERO);
        fake.registry_has("b:1", Duration::ZERO);
        let both = references(&["a:1", "b:1"]);
        let error = ensure_images(&fake, &both, PullPolicy::Never, &crate::event::Silent).await.unwrap_err();
        assert!(error.to_string().contains("b:1: not on this machine, and imagePullPolicy Never"), "{error}");
        assert_eq!(fake.calls_of("pull").len(), 0);
        let pulled = ensure_images(&fake, &both, PullPolicy::Always, &crate::event::Silent).await.unwrap();
        assert_eq!(pulled, both);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_is_away_is_one_error_not_one_an_image() {
        let fake = FakeRuntime::new();
        fake.set_unreachable(true);
        let both = references(&["a:1", "b:1"]);
        let error = ensure_images(&fake, &both, PullPolicy::IfNotPresent, &crate::event::Silent).await.unwrap_err();
        assert!(matches!(error, ImagesError::Runtime(RuntimeError::Unreachable { .. })), "{error}");
    }

    #[tokio::test]
    async fn what_is_present_is_listed_once_in_order() {
        let fake = FakeRuntime::new().with_image("b:1");
        let found = present(&fake, &references(&["c:1", "b:1", "c:1"])).await.unwrap();
        let found: Vec<(&str, bool)> = found.iter().map(|(name, image)| (name.as_str(), image.is_some())).collect();
        assert_eq!(found, [("c:1", false), ("b:1", true)]);
    }
}
