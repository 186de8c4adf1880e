//! What pods ask for and what the node has (`noderesources.Fits`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Refusal, Site};
use crate::agent::pod::StaticPod;
use crate::agent::pod::resources::{of_pod, unit};

/// The resource that every pod takes one of.
pub(super) const PODS: &str = "pods";
/// Resources that are looked at first, in this order.
const FIRST: [&str; 4] = [PODS, "cpu", "memory", "ephemeral-storage"];
/// Resources of the node that a size is in the name of.
const HUGE_PAGES: &str = "hugepages-";

/// A resource that the node has not enough of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shortage {
    pub resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    /// How much has to become free.
    pub fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    /// The refusal of a pod that is not critical.
    pub fn refusal(&self) -> Refusal {
        let Self { resource, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Refusal::new(&format!("OutOf{resource}"), message)
    }
}

/// A list of resources in the numbers of [`Site::allocatable`]. What is no number is left out.
pub fn amounts(list: &BTreeMap<String, Quantity>) -> BTreeMap<String, i64> {
    let amount = |(name, quantity): (&String, &Quantity)| Some((name.clone(), unit(name)(quantity)?));
    list.iter().filter_map(amount).collect()
}

/// What a pod asks for of a resource: its containers at the same time, or what it asks for as a whole, and its overhead.
pub fn requests(pod: &PodSpec, resource: &str) -> i64 {
    if resource == PODS {
        return 1;
    }
    let overhead = pod.overhead.as_ref().and_then(|list| list.get(resource)).and_then(unit(resource));
    of_pod(pod, false, resource, unit(resource)).saturating_add(overhead.unwrap_or(0))
}

/// What the node lacks to run `pod` beside `others`, in the kubelet's order. Extended resources (`example.com/gpu`) are not
/// looked at: those that the node has are its device plugins', and a pod is given devices before it runs, or refused then.
pub(super) fn shortages(pod: &StaticPod, site: &Site, others: &[&StaticPod]) -> Vec<Shortage> {
    let huge = huge_pages(&pod.spec);
    let resources = FIRST.into_iter().chain(huge.iter().map(String::as_str));
    let shortage = |resource: &str| {
        let capacity = match site.allocatable.get(resource) {
            Some(capacity) => *capacity,
            None if resource.starts_with(HUGE_PAGES) && !site.allocatable.is_empty() => 0,
            None => return None,
        };
        let requested = requests(&pod.spec, resource);
        let used = others.iter().map(|other| requests(&other.spec, resource)).fold(0, i64::saturating_add);
        let resource = resource.to_owned();
        let fits = requested <= 0 || used.saturating_add(requested) <= capacity;
        (!fits).then_some(Shortage { resource, requested, used, capacity })
    };
    resources.filter_map(shortage).collect()
}

/// The sizes of huge pages that a pod asks for.
fn huge_pages(pod: &PodSpec) -> BTreeSet<String> {
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    let all = containers.filter_map(|container| container.resources.as_ref()).chain(pod.resources.as_ref());
    let names = all.flat_map(|resources| resources.requests.iter().flatten().map(|(name, _)| name));
    names.filter(|name| name.starts_with(HUGE_PAGES)).cloned().collect()
}
