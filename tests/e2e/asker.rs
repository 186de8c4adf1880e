//! A client that asks the API server all the time, each time on a connection of its own: what others see while it is
//! replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::machine::*;

/// From one request to the next.
const PERIOD: Duration = Duration::from_millis(20);
/// A request that has no answer by then has failed.
const LIMIT: Duration = Duration::from_secs(5);

/// What came of the requests.
#[derive(Debug, Default)]
pub struct Asked {
    /// How many were made.
    pub requests: usize,
    /// Which failed, and how.
    pub failed: Vec<String>,
    /// The longest that one took.
    pub slowest: Duration,
}

/// A thread that asks.
pub struct Asker {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Asked>,
}

impl Asker {
    /// Begins to ask, as the administrator.
    pub fn start() -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let kubeconfig = std::fs::read_to_string(ADMIN_CONF).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask(&kubeconfig, &stopped, &counted))
        });
        Self { stop, count, thread }
    }

    /// Waits until `more` further requests have been made.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let wanted = self.count.load(Ordering::SeqCst) + more;
        eventually("requests", Duration::from_secs(120), || self.count.load(Ordering::SeqCst) >= wanted);
    }

    /// Ends, and returns what came of it.
    pub fn stop(self) -> Asked {
        self.stop.store(true, Ordering::SeqCst);
        let asked = self.thread.join().unwrap();
        eprintln!("{} requests, {} failed, slowest {:?}", asked.requests, asked.failed.len(), asked.slowest);
        asked
    }

    /// Ends, and demands that every request was answered.
    #[track_caller]
    pub fn lost_nothing(self) {
        let asked = self.stop();
        assert!(asked.failed.is_empty() && asked.requests > 50, "{asked:#?}");
    }
}

async fn ask(kubeconfig: &str, stop: &AtomicBool, count: &AtomicUsize) -> Asked {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let mut asked = Asked::default();
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        // A client keeps its connections: each request has its own client.
        let client = Client::try_from(config.clone()).unwrap();
        let namespaces: Api<Namespace> = Api::all(client);
        let answer = tokio::time::timeout(LIMIT, namespaces.get("kube-system")).await;
        asked.requests += 1;
        count.fetch_add(1, Ordering::SeqCst);
        asked.slowest = asked.slowest.max(begun.elapsed());
        match answer {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => asked.failed.push(format!("{}: {error:?}", asked.requests)),
            Err(_) => asked.failed.push(format!("{}: no answer", asked.requests)),
        }
        tokio::time::sleep(PERIOD.saturating_sub(begun.elapsed())).await;
    }
    asked
}
