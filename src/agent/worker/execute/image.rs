//! Images by their pull policy.

use std::fmt::Display;

use super::*;
use crate::agent::counters;

/// How long a failure is called that (`ErrImagePull`) before it is called waiting (`ImagePullBackOff`).
const REPORTED: Duration = Duration::from_secs(5);

impl Worker {
    /// The image by its pull policy, or None after a pull was begun or a failure remembered.
    pub(in crate::agent::worker) async fn image(
        &mut self,
        container: &str,
        image: &str,
        policy: &str,
    ) -> Option<ImageRecord> {
        let pulled = self.seen.slots.get(container).is_some_and(|slot| slot.pulled);
        if !is_reference(image) {
            let message = wording::BAD_IMAGE_NAME.with(&[&wording::quoted(image), &wording::quoted(image)]);
            self.cannot_pull(container, ("InvalidImageName", "InspectFailed"), message);
            return None;
        }
        let local = match self.context.runtime.image(image).await {
            Ok(local) => local,
            Err(error) => {
                let mut failure = runtime_failure("ImageInspectError", &error);
                failure.message = wording::INSPECT_FAILED.with(&[&wording::quoted(image), &failure.message]);
                self.fail(container, failure, Some(&error));
                return None;
            }
        };
        let wants_pull = match policy {
            "Always" => !pulled || local.is_none(),
            _ => local.is_none(),
        };
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        if !wants_pull {
            slot.pulled = false;
            if !pulled {
                self.note_event(container, "Pulled", wording::PRESENT.with(&[&wording::quoted(image)]));
            }
            return local;
        }
        if policy == "Never" {
            let message = wording::NEVER_PULLED.with(&[&wording::quoted(image)]);
            self.cannot_pull(container, ("ErrImageNeverPull", "ErrImageNeverPull"), message);
            return None;
        }
        slot.pull_tries = match &slot.pull {
            Pull::Failed { tries, .. } => *tries,
            _ => 0,
        };
        slot.pull = Pull::Running { image: image.to_owned() };
        self.pull(container, image);
        None
    }

    /// Pulls beside the worker, when its turn comes.
    fn pull(&mut self, container: &str, image: &str) {
        info!(pod = %self.key, image, "pulling");
        self.note_event(container, "Pulling", wording::PULLING.with(&[&wording::quoted(image)]));
        let Some((pod, _)) = &self.pod else { return };
        let (context, myself, pod) = (Arc::clone(&self.context), self.myself.clone(), Arc::clone(pod));
        let (container, image) = (container.to_owned(), image.to_owned());
        let uid = self.uid();
        self.pulls.spawn(async move {
            let asked = Instant::now();
            let _turn = context.pulls.acquire().await;
            let started = Instant::now();
            let result = pull::pull(context.for_pull(), &pod, &image).await;
            let took = (started.elapsed(), asked.elapsed());
            context.metrics.startups.pulled(&uid, asked);
            if let Ok(record) = &result {
                // With the time in which it waited for its turn, as by the kubelet.
                context.metrics.pulls.time([counters::image_size(record.size).into()], took.1);
            }
            let _ = myself.send(Message::Pulled { uid, container, image, took, result });
        });
    }

    /// What no pull can mend is looked at again now and then. `reason` is that of the waiting, `event` that of the event.
    fn cannot_pull(&mut self, container: &str, (reason, event): (&'static str, &'static str), message: String) {
        warn!(pod = %self.key, container, reason, message, "no image");
        self.count_failure(container, reason);
        self.note_trouble(container, event, &message);
        self.note_trouble(container, "Failed", &wording::ERROR.with(&[&reason]));
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        let until = Instant::now() + PULL.after(1);
        slot.pull = Pull::Failed { reason, backed_off: message.clone(), message, until, reported: None, tries: 1 };
    }

    pub(in crate::agent::worker) fn pulled(
        &mut self,
        container: &str,
        image: &str,
        (took, waited): (Duration, Duration),
        result: Result<ImageRecord, RuntimeError>,
    ) {
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        match result {
            Ok(record) => {
                (slot.pull, slot.pulled, slot.pull_tries) = (Pull::Idle, true, 0);
                let span =
                    |time: Duration| wording::span(Duration::from_millis(time.as_millis().try_into().unwrap_or(0)));
                let parts: [&dyn Display; 4] = [&wording::quoted(image), &span(took), &span(waited), &record.size];
                self.note_event(container, "Pulled", wording::PULLED.with(&parts));
            }
            Err(error) => {
                let tries = slot.pull_tries.saturating_add(1);
                let (message, now) = (chain(&error), Instant::now());
                let (until, reported) = (now + PULL.after(tries), Some(now + REPORTED));
                warn!(pod = %self.key, container, error = message, "cannot pull");
                let (reason, quoted) = ("ErrImagePull", wording::quoted(image));
                let failed = wording::PULL_FAILED.with(&[&quoted, &message]);
                let backed_off = wording::WAITS_FOR_PULL.with(&[&quoted, &reason, &message]);
                slot.pull = Pull::Failed { reason, backed_off, message, until, reported, tries };
                self.count_failure(container, reason);
                self.note_trouble(container, "Failed", &failed);
                self.note_trouble(container, "Failed", &wording::ERROR.with(&[&reason]));
                self.note_unreachable(&error);
            }
        }
    }
}

/// Whether this is `[HOST[:PORT]/]PATH[:TAG][@DIGEST]` as every runtime reads it.
fn is_reference(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let well_digested = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    });
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let well_tagged = tag.is_none_or(|tag| {
        tag.len() <= 128 && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
    });
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost" || part.to_lowercase() != part;
    let path = match path.split_once('/') {
        Some((host, rest)) if is_host(host) => {
            let well_named = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
            if well_named { rest } else { return false }
        }
        _ => path,
    };
    well_digested && well_tagged && !path.is_empty() && path.split('/').all(is_component)
}

/// Lower-case words with single separators (`.`, `_`, `__` or dashes) between them.
fn is_component(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(is_word).filter(|separator| !separator.is_empty());
    part.starts_with(is_word) && part.ends_with(is_word) && { separators }
        .all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_what_every_runtime_reads() {
        let digest = format!("x@sha256:{}", "0a".repeat(32));
        for good in [
            "x",
            "x:1",
            "a/b_c/d-e.f:v1.2_3-x",
            "localhost:5000/x",
            "registry.k8s.io/pause:3.10",
            "[::1]:5000/x:1",
            "Host/x",
            "sha256:0123",
            &digest,
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", ":1", "x:", "X", "a//b", "a/", "/a", "a b", "x:-1", "a._b", "x@sha256:1", "x@", "a/B:1", "-a"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
