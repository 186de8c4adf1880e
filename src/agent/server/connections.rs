//! The connections of a listener, and which of them are of clients that have been let in. The others have places of their
//! own, few and for a short time, so that a client without credentials never waits in the place of one that has some.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at a time whose client has not been let in. One more ends another: see [`Connections::enter`].
pub const UNAUTHENTICATED: usize = 64;
/// Connections at a time of clients that have been let in.
pub const ADMITTED: usize = 256;

/// The connections of one listener.
pub struct Connections {
    unauthenticated: Mutex<Unauthenticated>,
    admitted: Arc<Semaphore>,
}

#[derive(Default)]
struct Unauthenticated {
    next: u64,
    /// By number: the oldest comes first.
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

impl Connections {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { unauthenticated: Mutex::default(), admitted: Arc::new(Semaphore::new(ADMITTED)) })
    }

    /// Takes a new connection in, which waits for nothing. Where there are too many of clients that have not been let in,
    /// it ends the oldest of the address that has most of them: a peer that opens many ends its own, and a client needs its
    /// place only for a handshake and one request.
    pub fn enter(self: &Arc<Self>, from: IpAddr, patience: Duration) -> Arc<Connection> {
        let (from, ended) = (network(from), CancellationToken::new());
        let mut unauthenticated = self.lock();
        let id = unauthenticated.next;
        unauthenticated.next = unauthenticated.next.wrapping_add(1);
        unauthenticated.all.insert(id, (from, ended.clone()));
        while unauthenticated.all.len() > UNAUTHENTICATED {
            let Some(crowded) = unauthenticated.most_crowded() else { break };
            if let Some((_, ended)) = unauthenticated.all.remove(&crowded) {
                ended.cancel();
            }
        }
        drop(unauthenticated);
        let (asked, patience) = (CancellationToken::new(), Arc::new(Patience::new(patience)));
        Arc::new(Connection { all: Arc::clone(self), id, ended, asked, patience, place: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Unauthenticated> {
        self.unauthenticated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unauthenticated {
    /// The oldest of the address that has most of them.
    fn most_crowded(&self) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (from, _) in self.all.values() {
            let count = counts.entry(*from).or_default();
            *count = count.saturating_add(1);
        }
        let most = counts.values().copied().max()?;
        self.all.iter().find(|(_, (from, _))| counts.get(from) == Some(&most)).map(|(id, _)| *id)
    }
}

/// The address by which connections are counted: with IPv6, a client has all those of its network.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

/// One connection.
pub struct Connection {
    all: Arc<Connections>,
    id: u64,
    /// Its place was taken by another.
    ended: CancellationToken,
    /// A first request has come.
    asked: CancellationToken,
    patience: Arc<Patience>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Connection {
    /// A request has come.
    pub fn ask(&self) {
        self.asked.cancel();
    }

    /// Its client has been let in: it has a place among those from now on. False where there is none left.
    pub fn admit(&self) -> bool {
        let mut place = self.place();
        if place.is_none() {
            let Ok(free) = Arc::clone(&self.all.admitted).try_acquire_owned() else { return false };
            *place = Some(free);
            self.all.lock().all.remove(&self.id);
        }
        true
    }

    /// Whether its client has been let in.
    pub fn is_admitted(&self) -> bool {
        self.place().is_some()
    }

    /// How long its client may take nothing of what is sent to it.
    pub fn patience(&self) -> Arc<Patience> {
        Arc::clone(&self.patience)
    }

    /// Returns why the connection is to end before its client does: it was ended for another, or no request has come
    /// within `limit`.
    pub async fn cut_off(&self, limit: Option<Duration>) -> &'static str {
        let late = async {
            match limit {
                Some(limit) if tokio::time::timeout(limit, self.asked.cancelled()).await.is_err() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.ended.cancelled() => "others came, and it has not been let in",
            () = late => "it has sent no request in time",
        }
    }

    /// Gives its place up. What becomes of it then, a stream, has a place elsewhere.
    pub fn leave(&self) {
        self.all.lock().all.remove(&self.id);
        *self.place() = None;
    }

    fn place(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a client may take nothing of what is sent to it; changes with what it asks for.
pub struct Patience(AtomicU64);

impl Patience {
    /// To begin with.
    pub fn new(patience: Duration) -> Self {
        let new = Self(AtomicU64::default());
        new.set(patience);
        new
    }

    /// From the next write on.
    pub fn set(&self, patience: Duration) {
        self.0.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// As it is now.
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_makes_room() {
        let all = Connections::new();
        let alone = all.enter(at("192.0.2.1"), PATIENCE);
        // One network, whichever of its addresses are used.
        let many: Vec<_> =
            (0..UNAUTHENTICATED - 1).map(|number| all.enter(at(&format!("2001:db8::{number:x}")), PATIENCE)).collect();
        let ended = |all: &[Arc<Connection>]| all.iter().filter(|one| one.ended.is_cancelled()).count();
        assert_eq!(ended(&many), 0);
        let late = all.enter(at("192.0.2.2"), PATIENCE);
        assert!(many[0].ended.is_cancelled() && ended(&many) == 1);
        let more = all.enter(at("2001:db8::ffff"), PATIENCE);
        assert!(many[1].ended.is_cancelled() && ended(&many) == 2);
        assert!([alone, late, more].iter().all(|one| !one.ended.is_cancelled()));
        many[2].leave();
        all.enter(at("192.0.2.3"), PATIENCE);
        assert_eq!(ended(&many), 2, "one had left");
    }

    #[test]
    fn who_is_let_in_makes_room_for_nobody_and_takes_none_from_the_others() {
        let all = Connections::new();
        let admitted: Vec<_> =
            (0..ADMITTED).map(|_| all.enter(at("127.0.0.1"), PATIENCE)).inspect(|one| assert!(one.admit())).collect();
        let strangers: Vec<_> = (0..UNAUTHENTICATED * 2).map(|_| all.enter(at("127.0.0.1"), PATIENCE)).collect();
        assert!(admitted.iter().all(|one| one.is_admitted() && !one.ended.is_cancelled()));
        let last = strangers.last().unwrap();
        assert!(!last.admit() && !last.is_admitted(), "there is no place left");
        admitted[0].leave();
        assert!(last.admit() && last.admit(), "twice is once");
        assert!(!admitted[0].admit());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_cut_off_and_one_with_a_request_is_not() {
        let all = Connections::new();
        let (started, limit) = (crate::host::clock::Instant::now(), Duration::from_secs(10));
        let silent = all.enter(at("127.0.0.1"), PATIENCE);
        assert_eq!(silent.cut_off(Some(limit)).await, "it has sent no request in time");
        assert_eq!(started.elapsed(), limit);
        let asking = all.enter(at("127.0.0.1"), PATIENCE);
        asking.ask();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, asking.cut_off(Some(limit))).await.is_err());
        assert!(tokio::time::timeout(hour, silent.cut_off(None)).await.is_err());
    }
}
