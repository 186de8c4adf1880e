//! Counts by labels, and histograms, as Prometheus has them. Neither can grow without bound.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The upper bounds that Prometheus' Go client has where none are named, in seconds.
pub const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Those of the kubelet for the start of a pod, in seconds.
pub const POD_START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// Those for the pull of an image, in seconds.
pub const IMAGE_PULL: &[f64] = &[
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0,
    3600.0,
];
/// Those for operations of the runtime: 5 ms and then two and a half times as much each.
pub const OPERATIONS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078_125,
    0.195_312_5,
    0.488_281_25,
    1.220_703_125,
    3.051_757_812_5,
    7.629_394_531_25,
    19.073_486_328_125,
    47.683_715_820_312_5,
    119.209_289_550_781_25,
    298.023_223_876_953_1,
    745.058_059_692_382_8,
];
/// Those for volumes, in seconds.
pub const STORAGE: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
/// Those of client-go for requests to the API server, in seconds.
pub const REQUESTS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// Those for statuses of pods on their way to the API server, in seconds.
pub const STATUS_SYNC: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];
/// Those for the age at which a serving certificate is replaced, from a minute to four years, in seconds.
pub const ROTATION: &[f64] =
    &[60.0, 3600.0, 14_400.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 15_552_000.0, 31_104_000.0, 124_416_000.0];
/// Those for how many containers a pod has.
pub const CONTAINERS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];

/// The most sets of label values of one family. All beyond are counted together.
const MOST: usize = 200;
/// What every label of those says.
const OTHER: Cow<'static, str> = Cow::Borrowed("other");

/// One series of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Upper bounds of the buckets, ascending.
    pub bounds: &'static [f64],
    /// How often a value was no larger than each bound.
    pub within: Vec<u64>,
    /// How often there was one.
    pub count: u64,
    /// All values together.
    pub sum: f64,
}

impl Counts {
    /// Nothing yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, within: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    /// One more value.
    pub fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum += value;
        for (count, bound) in self.within.iter_mut().zip(self.bounds) {
            *count = count.saturating_add(u64::from(value <= *bound));
        }
    }
}

/// A histogram without labels.
#[derive(Debug)]
pub struct Histogram(Mutex<Counts>);

impl Histogram {
    /// Nothing yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self(Mutex::new(Counts::new(bounds)))
    }

    /// One more value.
    pub fn observe(&self, value: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(value);
    }

    /// One more time, in seconds.
    pub fn time(&self, took: Duration) {
        self.observe(took.as_secs_f64());
    }

    /// What was counted so far.
    pub fn get(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The values of a family's labels.
pub type Labels<const N: usize> = [Cow<'static, str>; N];

/// What is counted for each set of label values.
#[derive(Debug)]
struct ByLabels<T, const N: usize>(Mutex<BTreeMap<Labels<N>, T>>);

impl<T: Clone, const N: usize> ByLabels<T, N> {
    fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn change(&self, labels: Labels<N>, first: impl FnOnce() -> T, change: impl FnOnce(&mut T)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = all.len() < MOST || all.contains_key(&labels);
        let labels = if is_known { labels } else { [OTHER; N] };
        change(all.entry(labels).or_insert_with(first));
    }

    fn all(&self) -> Vec<(Labels<N>, T)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(labels, one)| (labels.clone(), one.clone())).collect()
    }
}

/// A counter by labels.
#[derive(Debug)]
pub struct Counters<const N: usize>(ByLabels<u64, N>);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(ByLabels::new())
    }
}

impl<const N: usize> Counters<N> {
    /// Once more.
    pub fn count(&self, labels: Labels<N>) {
        self.0.change(labels, || 0, |count| *count = count.saturating_add(1));
    }

    /// What was counted so far.
    pub fn all(&self) -> Vec<(Labels<N>, u64)> {
        self.0.all()
    }
}

/// A histogram by labels.
#[derive(Debug)]
pub struct Histograms<const N: usize> {
    bounds: &'static [f64],
    all: ByLabels<Counts, N>,
}

impl<const N: usize> Histograms<N> {
    /// Nothing yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, all: ByLabels::new() }
    }

    /// One more time, in seconds.
    pub fn time(&self, labels: Labels<N>, took: Duration) {
        self.all.change(labels, || Counts::new(self.bounds), |counts| counts.add(took.as_secs_f64()));
    }

    /// What was counted so far.
    pub fn all(&self) -> Vec<(Labels<N>, Counts)> {
        self.all.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_every_bucket_that_reaches_it() {
        let histogram = Histogram::new(CONTAINERS);
        for value in [1.0, 3.0, 99.0] {
            histogram.observe(value);
        }
        let counts = histogram.get();
        assert_eq!((counts.within.as_slice(), counts.count, counts.sum), ([1, 1, 2, 2, 2].as_slice(), 3, 103.0));
    }

    #[test]
    fn a_family_that_has_many_series_counts_all_further_ones_together() {
        let (counters, times) = (Counters::default(), Histograms::new(DEFAULT));
        for number in 0..2 * MOST {
            counters.count([number.to_string().into(), "x".into()]);
            times.time([number.to_string().into()], Duration::from_secs(1));
        }
        counters.count(["0".into(), "x".into()]);
        let all = counters.all();
        assert_eq!(all.len(), MOST + 1);
        let of = |first: &str| all.iter().find(|(labels, _)| labels[0] == first).unwrap().1;
        assert_eq!((of("0"), of("other")), (2, MOST as u64));
        assert_eq!(times.all().len(), MOST + 1);
    }
}
