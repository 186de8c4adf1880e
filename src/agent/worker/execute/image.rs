//! Images by their pull policy.

use super::*;

impl Worker {
    /// The image by its pull policy, or None after a pull was begun or a failure remembered.
    pub(in crate::agent::worker) async fn image(
        &mut self,
        container: &str,
        image: &str,
        policy: &str,
    ) -> Option<ImageRecord> {
        let pulled = self.seen.slots.get(container).is_some_and(|slot| slot.pulled);
        let local = match self.context.runtime.image(image).await {
            Ok(local) => local,
            Err(error) => {
                self.fail(container, runtime_failure("ImageInspectError", &error), Some(&error));
                return None;
            }
        };
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        let wants_pull = match policy {
            "Always" => !pulled || local.is_none(),
            _ => local.is_none(),
        };
        if !wants_pull {
            slot.pulled = false;
            return local;
        }
        if policy == "Never" {
            let message = format!("image {image} is not present and its pull policy is Never");
            let until = Instant::now() + PULL.after(1);
            slot.pull = Pull::Failed { reason: "ErrImageNeverPull", message, until, tries: 1 };
            return None;
        }
        let tries = match &slot.pull {
            Pull::Failed { tries, .. } => *tries,
            _ => 0,
        };
        slot.pull_tries = tries;
        slot.pull = Pull::Running { image: image.to_owned() };
        info!(pod = %self.key, image, "pulling");
        let (context, myself) = (Arc::clone(&self.context), self.myself.clone());
        let (container, image) = (container.to_owned(), image.to_owned());
        let uid = self.uid();
        self.pulls.spawn(async move {
            let _turn = context.pulls.acquire().await;
            let result = context.runtime.pull(&image, &|_, _| {}).await;
            let _ = myself.send(Message::Pulled { uid, container, result });
        });
        None
    }

    pub(in crate::agent::worker) fn pulled(&mut self, container: &str, result: Result<ImageRecord, RuntimeError>) {
        let slot = self.seen.slots.entry(container.to_owned()).or_default();
        match result {
            Ok(_) => (slot.pull, slot.pulled, slot.pull_tries) = (Pull::Idle, true, 0),
            Err(error) => {
                let tries = slot.pull_tries + 1;
                let reason = if tries == 1 { "ErrImagePull" } else { "ImagePullBackOff" };
                let (message, until) = (chain(&error), Instant::now() + PULL.after(tries));
                warn!(pod = %self.key, container, error = message, "cannot pull");
                slot.pull = Pull::Failed { reason, message, until, tries };
                self.note_unreachable(&error);
            }
        }
    }
}
