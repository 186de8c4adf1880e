//! A client that writes all the time: whatever is acknowledged to it must be there afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::machine::*;

/// The pause between two writes.
const PAUSE: Duration = Duration::from_millis(20);
/// A write that has no answer by then is none that was acknowledged.
const LIMIT: Duration = Duration::from_secs(2);

/// A thread that makes one ConfigMap after the other.
pub struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Writer {
    /// Begins to write, as the administrator.
    pub fn start() -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let kubeconfig = std::fs::read_to_string(ADMIN_CONF).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(write(&kubeconfig, &stopped, &counted))
        });
        Self { stop, count, thread }
    }

    /// Waits until `more` further writes have been acknowledged.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let wanted = self.count.load(Ordering::SeqCst) + more;
        eventually("writes", Duration::from_secs(60), || (self.count.load(Ordering::SeqCst) >= wanted).then_some(()));
    }

    /// Ends, and returns the names of what was acknowledged.
    pub fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

async fn write(kubeconfig: &str, stop: &AtomicBool, count: &AtomicUsize) -> Vec<String> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    (config.connect_timeout, config.read_timeout) = (Some(LIMIT), Some(LIMIT));
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config).unwrap(), "default");
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let mut map = ConfigMap::default();
        map.metadata.name = Some(format!("written-{n}"));
        let made = tokio::time::timeout(LIMIT, maps.create(&PostParams::default(), &map)).await;
        if matches!(made, Ok(Ok(_))) {
            acknowledged.extend(map.metadata.name);
            count.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(PAUSE).await;
    }
    acknowledged
}

/// Those of `acknowledged` that are not there.
#[track_caller]
pub fn missing(acknowledged: &[String]) -> Vec<String> {
    let there = kubectl(&["get", "configmaps", "-o", "name"]).ok();
    let there: std::collections::BTreeSet<&str> = there.lines().filter_map(|line| line.split('/').nth(1)).collect();
    acknowledged.iter().filter(|name| !there.contains(name.as_str())).cloned().collect()
}
