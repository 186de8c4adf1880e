//! A service manager in memory: it records every call, fails the n-th one by name, and its service ends when told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::kubelet::service::{ServiceError, ServiceManager};

/// What the fake knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// Starts with the machine.
    pub enabled: bool,
    /// Runs now.
    pub running: bool,
    /// Calls that change something, in order.
    pub calls: Vec<&'static str>,
}

/// The fake; clones share one state.
#[derive(Clone)]
pub struct FakeService {
    state: Arc<Mutex<ServiceState>>,
    failures: Arc<Mutex<HashMap<&'static str, usize>>>,
    ended: watch::Sender<Option<Vec<String>>>,
}

impl Default for FakeService {
    fn default() -> Self {
        Self { state: Arc::default(), failures: Arc::default(), ended: watch::Sender::new(None) }
    }
}

impl FakeService {
    /// The state now.
    pub fn state(&self) -> ServiceState {
        self.lock().clone()
    }

    /// The `nth` call (from 1) of `start`, `stop`, `disable` or `reload` fails, once.
    pub fn fail(&self, call: &'static str, nth: usize) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).insert(call, nth);
    }

    /// The service ends by itself, with these last lines in its log.
    pub fn end(&self, log: &[&str]) {
        self.lock().running = false;
        self.ended.send_replace(Some(log.iter().map(|line| (*line).to_owned()).collect()));
    }

    fn lock(&self) -> MutexGuard<'_, ServiceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, name: &'static str) -> Result<MutexGuard<'_, ServiceState>, ServiceError> {
        let mut state = self.lock();
        state.calls.push(name);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(name) {
            Some(nth) if *nth == state.calls.iter().filter(|call| **call == name).count() => {
                failures.remove(name);
                let said = "told to fail".to_owned();
                Err(ServiceError::Command { command: name.into(), status: "exit status: 1".into(), said, log: vec![] })
            }
            _ => Ok(state),
        }
    }
}

#[async_trait]
impl ServiceManager for FakeService {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn is_enabled(&self) -> Result<bool, ServiceError> {
        Ok(self.lock().enabled)
    }

    fn is_running(&self) -> Result<bool, ServiceError> {
        Ok(self.lock().running)
    }

    fn pid(&self) -> Option<u32> {
        self.lock().running.then_some(4242)
    }

    fn start(&self) -> Result<String, ServiceError> {
        let mut state = self.call("start")?;
        (state.enabled, state.running) = (true, true);
        self.ended.send_replace(None);
        Ok("started the fake".into())
    }

    fn stop(&self) -> Result<bool, ServiceError> {
        Ok(std::mem::take(&mut self.call("stop")?.running))
    }

    fn disable(&self) -> Result<(), ServiceError> {
        self.call("disable")?.enabled = false;
        Ok(())
    }

    fn reload(&self) -> Result<(), ServiceError> {
        self.call("reload").map(drop)
    }

    fn log_tail(&self) -> Vec<String> {
        vec!["the fake's last words".to_owned()]
    }

    async fn ended(&self) -> Vec<String> {
        let mut ended = self.ended.subscribe();
        // The sender is `self`'s, so it is there.
        ended.wait_for(Option::is_some).await.map(|log| log.clone().unwrap_or_default()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_recorded_and_the_nth_fails_once() {
        let service = FakeService::default();
        service.fail("start", 2);
        assert!(service.start().is_ok() && service.start().is_err() && service.start().is_ok());
        assert!(service.stop().unwrap() && !service.stop().unwrap());
        assert_eq!(service.state().calls, ["start", "start", "start", "stop", "stop"]);
    }

    #[tokio::test]
    async fn its_end_is_noticed_with_its_last_words() {
        let service = FakeService::default();
        service.start().unwrap();
        let (log, ()) = tokio::join!(service.ended(), async { service.end(&["bye"]) });
        assert_eq!(log, ["bye"]);
    }
}
