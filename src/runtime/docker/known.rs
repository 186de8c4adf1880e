//! Which containers are still what they were when last looked at. Docker's list names each one's state and its age in
//! words, which is enough to see that nothing has changed: 200 containers cost one call instead of 201.
//!
//! Words, for the list has no other trace of a start or an end (`Created` is neither), and events, which have, cannot vouch
//! for a list that is there in case one was missed. They are not parsed but foretold: other words cost a call, no more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::models::ContainerSummary;
use jiff::Timestamp;

use super::record;
use crate::runtime::*;

/// Age in seconds up to which (exclusive) a unit is used, the unit in seconds, what one of it is called, and its plural.
/// Hours are rounded, everything else is cut off; longer units count rounded hours.
const UNITS: [(i64, i64, &str, &str); 6] = [
    (60, 1, "1 second", "seconds"),
    (3600, 60, "About a minute", "minutes"),
    (48 * 3600, 3600, "About an hour", "hours"),
    (14 * 86400, 86400, "", "days"),
    (60 * 86400, 7 * 86400, "", "weeks"),
    (730 * 86400, 30 * 86400, "", "months"),
];

/// Records of containers as they were last inspected, by id.
#[derive(Default)]
pub struct Known(Mutex<HashMap<String, ContainerRecord>>);

impl Known {
    /// The record of a listed container, if what was listed between these two moments says that it still holds.
    pub fn unchanged(&self, listed: &ContainerSummary, asked: [Timestamp; 2]) -> Option<ContainerRecord> {
        let known = self.lock();
        let record = known.get(listed.id.as_deref()?)?;
        (status_fits(record, listed.status.as_deref()?, asked) && address_fits(record, listed)).then(|| record.clone())
    }

    /// Remembers all containers of an owner, and forgets those that are not among them.
    pub fn replace(&self, owner: &str, records: &[ContainerRecord]) {
        let mut known = self.lock();
        known.retain(|_, record| record.labels.get(labels::OWNER).is_none_or(|other| other != owner));
        known.extend(records.iter().map(|record| (record.id.clone(), record.clone())));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ContainerRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address_fits(record: &ContainerRecord, listed: &ContainerSummary) -> bool {
    let networks = listed.network_settings.as_ref().and_then(|network| network.networks.as_ref());
    !record.state.is_running() || record.ip == record::address(networks)
}

/// Whether Docker, asked between these moments, would have said this of a container with this record.
fn status_fits(record: &ContainerRecord, status: &str, asked: [Timestamp; 2]) -> bool {
    asked.into_iter().any(|now| match &record.state {
        ContainerState::Created => status == "Created",
        ContainerState::Running { started_at } => status == format!("Up {}", age(*started_at, now)),
        ContainerState::Exited { exit_code, finished_at: Some(at), .. } => {
            status == format!("Exited ({exit_code}) {} ago", age(*at, now))
        }
        ContainerState::Exited { finished_at: None, .. } => false,
    })
}

/// An age in Docker's words.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs();
    if seconds < 1 {
        return "Less than a second".to_owned();
    }
    let rounded = (seconds + 1800) / 3600 * 3600;
    for (index, (until, unit, one, many)) in UNITS.into_iter().enumerate() {
        let counted = if index < 2 { seconds } else { rounded };
        match counted / unit {
            _ if counted >= until => {}
            1 if !one.is_empty() => return one.to_owned(),
            count => return format!("{count} {many}"),
        }
    }
    format!("{} years", seconds / (365 * 86400))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_age_is_said_as_docker_says_it() {
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        let of = |seconds: i64| age(now - SignedDuration::from_secs(seconds), now);
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (59 * 86400, "8 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(of(seconds), words, "{seconds}");
        }
    }

    fn listed(status: &str, ip: &str) -> ContainerSummary {
        let networks = json!({"bridge": {"IPAddress": ip}});
        serde_json::from_value(json!({"Id": "a", "Status": status, "NetworkSettings": {"Networks": networks}})).unwrap()
    }

    #[test]
    fn a_record_holds_as_long_as_state_age_and_address_are_as_expected() {
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        let started_at = now - SignedDuration::from_secs(30);
        let inspected = json!({
            "Id": "a", "State": {"Running": true, "StartedAt": started_at.to_string()},
            "Config": {"Labels": {labels::OWNER: "me"}},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}
        });
        let record = record::container(&serde_json::from_value(inspected).unwrap());
        let known = Known::default();
        let holds = |status: &str, ip: &str| known.unchanged(&listed(status, ip), [now, now]).is_some();
        assert!(!holds("Up 30 seconds", "172.17.0.2"), "nobody has looked yet");
        known.replace("me", std::slice::from_ref(&record));
        assert!(holds("Up 30 seconds", "172.17.0.2"));
        assert!(!holds("Up 2 seconds", "172.17.0.2"), "it was started again");
        assert!(!holds("Up 30 seconds (Paused)", "172.17.0.2"));
        assert!(!holds("Exited (0) 1 second ago", ""));
        assert!(!holds("Up 30 seconds", "172.17.0.9"), "it has another address");
        known.replace("another", &[]);
        assert!(holds("Up 30 seconds", "172.17.0.2"), "another owner's list says nothing of it");
        known.replace("me", &[]);
        assert!(!holds("Up 30 seconds", "172.17.0.2"));
        let ended = ContainerState::Exited {
            exit_code: 137,
            reason: "Error".into(),
            message: String::new(),
            started_at: Some(started_at),
            finished_at: Some(started_at),
        };
        known.replace("me", &[ContainerRecord { state: ended, ..record }]);
        assert!(holds("Exited (137) 30 seconds ago", ""));
        assert!(!holds("Exited (1) 30 seconds ago", ""));
    }
}
