//! Hooks, beside the worker: it hears of their end.

use super::*;
use crate::agent::probe::LOOPBACK;
use crate::runtime::labels;

impl Worker {
    /// Whether a `postStart` hook of the pod runs.
    pub(super) fn is_hooked(&self) -> bool {
        let mut instances = self.seen.instances.values();
        instances.any(|one| one.is_running() && one.post_start == PostStart::Running)
    }

    /// Begins the `postStart` hook of a container that has just been started, if it has one.
    pub(super) fn post_start(&mut self, id: &str, name: &str) {
        let Some((pod, _)) = self.pod.as_ref() else { return };
        let container = pod.containers().map(|(_, container)| container).find(|container| container.name == name);
        let Some(container) = container else { return };
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(handler) = handler else { return };
        let hook = Hook::of(handler, container.ports.as_deref().unwrap_or_default());
        match self.seen.instances.get_mut(id) {
            Some(one) if one.is_running() => one.post_start = PostStart::Running,
            // It has ended already, which says all.
            _ => return,
        }
        self.begin_hook(HookKind::PostStart, id, hook, None);
    }

    /// Begins the `preStop` hook of a container that is to be stopped, as it was when the container was made.
    pub(super) fn pre_stop(&mut self, id: &str, grace: Duration) {
        let Some(one) = self.seen.instances.get(id) else { return };
        let annotations = &one.record.annotations;
        let Some(handler) = annotations.get(labels::PRE_STOP) else { return };
        let hook = Hook::of_json(handler, annotations.get(labels::PORTS).map(String::as_str));
        self.begin_hook(HookKind::PreStop, id, hook, Some(grace));
    }

    fn begin_hook(&mut self, kind: HookKind, id: &str, hook: Result<Hook, HookError>, limit: Option<Duration>) {
        let place = hooks::Place { container: id.to_owned(), address: self.address_of(id) };
        let (context, myself, id) = (Arc::clone(&self.context), self.myself.clone(), id.to_owned());
        debug!(pod = %self.key, ?kind, id, "hook begins");
        let reported = id.clone();
        let task = self.stops.spawn(async move {
            let result = match hook {
                Ok(hook) => context.hooks.run(&hook, &place, limit).await,
                Err(error) => Err(error),
            };
            let _ = myself.send(Message::Hooked { id: reported, kind, result });
        });
        self.hooks.insert(id, task);
    }

    /// Where a container can be reached: its sandbox's address, and where that has none of its own the one that probes of
    /// pods on the machine's network go to.
    fn address_of(&self, id: &str) -> Option<String> {
        let of_host = || self.context.host_network_ip().unwrap_or(LOOPBACK).to_owned();
        let sandbox = self.seen.instances.get(id)?.sandbox();
        if sandbox.is_empty() {
            return Some(of_host());
        }
        let sandbox = self.seen.instances.get(sandbox).filter(|one| one.is_running())?;
        Some(sandbox.record.ip.clone().unwrap_or_else(of_host))
    }

    pub(in crate::agent::worker) fn hooked(&mut self, id: &str, kind: HookKind, result: Result<(), HookError>) {
        let Some(one) = self.seen.instances.get_mut(id) else { return };
        let failure = result.err().map(|error| chain(&error));
        match (kind, &mut one.kill) {
            (HookKind::PreStop, Some(kill)) => kill.hook = false,
            (HookKind::PreStop, None) => {}
            // Only one that runs can be at fault.
            (HookKind::PostStart, _) if one.post_start != PostStart::Running => return,
            (HookKind::PostStart, _) => {
                one.post_start = failure.clone().map_or(PostStart::None, PostStart::Failed);
            }
        }
        if let Some(failure) = failure {
            let name = &one.record.name;
            warn!(pod = %self.key, container = name.container, ?kind, failure, "hook failed");
            let subject = Subject { pod: &self.key, uid: &name.uid, container: Some(&name.container) };
            // Not why: what a hook prints or is answered may be a secret, and events have many readers.
            let (reason, form) = match kind {
                HookKind::PostStart => ("FailedPostStartHook", wording::POST_START_FAILED),
                HookKind::PreStop => ("FailedPreStopHook", wording::PRE_STOP_FAILED),
            };
            self.context.events.warning(subject, reason, form.with(&[]));
        }
    }

    /// A container has ended, and with it whatever ran in it.
    pub(in crate::agent::worker) fn end_hook(&mut self, id: &str) {
        if let Some(task) = self.hooks.remove(id) {
            task.abort();
        }
        let Some(one) = self.seen.instances.get_mut(id) else { return };
        if let Some(kill) = &mut one.kill {
            kill.hook = false;
        }
        if one.post_start == PostStart::Running {
            one.post_start = PostStart::None;
        }
    }
}
