//! A reset without an inventory, or with one that is damaged: what is known to be ours all the same.

use std::path::Path;

use crate::error::chain;
use crate::host::paths::{KUBELET_DIR, KUBELET_DROP_IN, KUBELET_UNIT, KUBERNETES_DIR};
use crate::runtime::endpoint::Endpoint;
use crate::workflow::machine::Machine;
use crate::workflow::state::StateError;
use crate::workflow::state::inventory::{Entry, Inventory, Item};
use crate::workflow::state::saved::Saved;
use crate::workflow::upgrade::copy::aside;
use crate::workflow::upgrade::journal::{DATA_PREFIX, Journal};

/// Says what is wrong with the records. Where nothing is left of the inventory, has the reset take away what shows itself
/// whose it is: containers by their label, the service by its unit. Files show nothing: they stay, and are named.
pub fn make_do(machine: &Machine, inventory: &mut Inventory, wrong: &[StateError]) {
    for error in wrong {
        let text = match error {
            StateError::NoInventory { path } => {
                let there = |dir: &&&str| machine.tree.exists(Path::new(dir));
                let left: Vec<&str> =
                    [KUBERNETES_DIR, KUBELET_DIR, "/var/lib/etcd"].iter().filter(there).copied().collect();
                inventory.assume(entries(machine));
                format!(
                    "{} is missing or empty: the agent and its containers go; what is in {} stays, for nothing says who made \
                     it: look there yourself",
                    path.display(),
                    left.join(", ")
                )
            }
            error => format!("{}: what it names stays, unless another record names it too", chain(error)),
        };
        machine.reporter.warn("reset", text);
    }
}

/// What upgrades have left beside etcd's data: copies, whose directories alone were recorded, and what one that was cut off
/// while it put a copy back had made ready. On a node that was taken over nothing is recorded, and copies stay as all backups do.
pub fn left_by_upgrades(machine: &Machine, inventory: &mut Inventory) {
    let name = |item: &Item| item.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_copy = |item: &&Item| name(item).is_some_and(|name| name.starts_with(DATA_PREFIX));
    let items = inventory.items().into_iter().filter(is_copy).map(|item| Item::tree(&item.path)).collect();
    inventory.assume(vec![Entry::Expected { items }]);
    // A journal that makes no sense names nothing.
    let journal = Journal::read(&*machine.tree).ok().flatten();
    if let Some(data) = journal.and_then(|journal| journal.etcd_data) {
        inventory.assume(vec![Entry::Expected { items: vec![Item::tree(aside(&data.from))] }]);
    }
}

fn entries(machine: &Machine) -> Vec<Entry> {
    let tree = &*machine.tree;
    let text =
        |path: &str| tree.read(Path::new(path)).ok().flatten().map(|text| String::from_utf8_lossy(&text).into_owned());
    let saved = Saved::read(tree).ok().flatten().and_then(|saved| saved.spec().ok());
    let runtime = saved.and_then(|(spec, _)| Endpoint::of(&spec).address());
    let mut entries = vec![Entry::Containers { runtime, owner: KUBELET_DIR.to_owned() }];
    if text(KUBELET_UNIT).is_some_and(|unit| unit.contains("kubeboot")) {
        let dir = Path::new(KUBELET_DROP_IN).parent().map(Item::dir);
        let items = dir.into_iter().chain([Item::file(KUBELET_UNIT), Item::file(KUBELET_DROP_IN)]);
        entries.extend([Entry::Service { enabled_before: false }, Entry::Expected { items: items.collect() }]);
    }
    entries
}
