//! `evictionHard`: how little of disk and memory may be left. This agent evicts nothing; it says when less is left, and
//! keeps as much from what pods can have, as a kubelet does.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::agent::pod::resources;

/// `memory.available`.
pub const MEMORY: &str = "memory.available";
/// `nodefs.available`, in bytes.
pub const DISK: &str = "nodefs.available";
/// `nodefs.inodesFree`, in files.
pub const FILES: &str = "nodefs.inodesFree";

/// Every signal that a kubelet of 1.36 knows.
const SIGNALS: &[&str] = &[
    "allocatableMemory.available",
    "containerfs.available",
    "containerfs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    MEMORY,
    DISK,
    FILES,
    "pid.available",
];

/// What a kubelet takes where nothing is set.
const DEFAULTS: &[(&str, &str)] =
    &[("imagefs.available", "15%"), ("imagefs.inodesFree", "5%"), (MEMORY, "100Mi"), (DISK, "10%"), (FILES, "5%")];

/// How little may be left, by signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(BTreeMap<String, (String, Threshold)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threshold {
    /// `0%` and `100%` stand for none.
    None,
    /// Of all there is, in millionths.
    Share(u64),
    /// In bytes or files.
    Amount(u64),
}

impl Default for Thresholds {
    fn default() -> Self {
        let row = |(signal, value): &(&str, &str)| {
            let threshold = read(value).unwrap_or(Threshold::None);
            ((*signal).to_owned(), ((*value).to_owned(), threshold))
        };
        Self(DEFAULTS.iter().map(row).collect())
    }
}

impl Thresholds {
    /// Reads a map of signals and values. A signal that is not in it has no threshold, unless the `defaults` are to stand
    /// for those (`mergeDefaultEvictionSettings`).
    ///
    /// # Errors
    /// A signal that no kubelet knows, or a value that is neither a percentage nor a quantity above 0.
    pub fn new(written: &BTreeMap<String, String>, defaults: bool) -> Result<Self, String> {
        let mut found = if defaults { Self::default() } else { Self(BTreeMap::new()) };
        for (signal, value) in written {
            if !SIGNALS.contains(&signal.as_str()) {
                return Err(format!("{signal:?} is no signal of evictions; there are {}", SIGNALS.join(", ")));
            }
            let threshold = read(value).map_err(|problem| format!("{signal}: {problem}"))?;
            found.0.insert(signal.clone(), (value.clone(), threshold));
        }
        Ok(found)
    }

    /// Less than this is short, of `all` there is; None without a threshold.
    #[must_use]
    pub fn least(&self, signal: &str, all: u64) -> Option<u64> {
        match self.0.get(signal)?.1 {
            Threshold::None => None,
            Threshold::Share(millionths) => {
                let share = u128::from(all).saturating_mul(millionths.into()) / 1_000_000;
                Some(u64::try_from(share).unwrap_or(u64::MAX))
            }
            Threshold::Amount(amount) => Some(amount),
        }
    }

    /// A threshold as it is written, `10%` or `1Gi`; empty without one.
    #[must_use]
    pub fn shown(&self, signal: &str) -> &str {
        self.0.get(signal).map_or("", |(written, _)| written)
    }

    /// All of them as they are written.
    #[must_use]
    pub fn written(&self) -> BTreeMap<&str, &str> {
        self.0.iter().map(|(signal, (written, _))| (signal.as_str(), written.as_str())).collect()
    }
}

fn read(value: &str) -> Result<Threshold, String> {
    if ["0%", "100%"].contains(&value) {
        return Ok(Threshold::None);
    }
    if let Some(percent) = value.strip_suffix('%') {
        let percent = percent.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
        let percent = percent.ok_or_else(|| format!("{value:?} is no percentage from 0% to 100%"))?;
        // Nothing that a disk holds needs a finer share than a millionth.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1000000")]
        return Ok(Threshold::Share((percent * 10_000.0).round() as u64));
    }
    let amount = resources::bytes(&Quantity(value.to_owned())).and_then(|bytes| u64::try_from(bytes).ok());
    let amount = amount.filter(|amount| *amount > 0);
    amount.map(Threshold::Amount).ok_or_else(|| format!("{value:?} is neither a percentage nor a quantity above 0"))
}

/// `signal<value,signal2<value2`.
pub(super) fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('<').ok_or("must be written as signal<value,signal2<value2")?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds(text: &str, defaults: bool) -> Result<Thresholds, String> {
        Thresholds::new(&pairs(text)?, defaults)
    }

    #[test]
    fn without_a_word_they_are_the_kubelets_and_with_one_those_that_are_named() {
        let all = Thresholds::default();
        assert_eq!(
            (all.least(DISK, 1000), all.least(FILES, 1000), all.least(MEMORY, 1)),
            (Some(100), Some(50), Some(100 << 20))
        );
        let one = thresholds("nodefs.available<2.5%, memory.available<1Gi", false).unwrap();
        assert_eq!(
            (one.least(DISK, 1000), one.least(FILES, 1000)),
            (Some(25), None),
            "those that are not named have none"
        );
        assert_eq!((one.least(MEMORY, 1), one.shown(DISK), one.shown(FILES)), (Some(1 << 30), "2.5%", ""));
        let merged = thresholds("nodefs.available<2%", true).unwrap();
        assert_eq!((merged.least(DISK, 1000), merged.least(FILES, 1000)), (Some(20), Some(50)));
        assert_eq!(thresholds("", false).unwrap().written(), BTreeMap::new());
    }

    #[test]
    fn zero_percent_and_all_of_it_stand_for_no_threshold() {
        let none = thresholds("nodefs.available<0%,nodefs.inodesFree<100%", false).unwrap();
        assert_eq!((none.least(DISK, 1000), none.least(FILES, 1000)), (None, None));
    }

    #[test]
    fn what_no_kubelet_takes_is_an_error_that_names_it() {
        for (text, says) in [
            ("nodefs.free<1%", "\"nodefs.free\" is no signal"),
            ("nodefs.available<101%", "nodefs.available: \"101%\""),
            ("nodefs.available<-1%", "no percentage"),
            ("nodefs.available<x%", "no percentage"),
            ("memory.available<0", "quantity above 0"),
            ("memory.available<-5Mi", "quantity above 0"),
            ("memory.available<much", "quantity above 0"),
            ("memory.available=1Gi", "signal<value"),
        ] {
            let error = thresholds(text, false).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
