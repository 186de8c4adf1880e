//! Where a pod's cgroup is, by the kubelet's names.

use std::path::PathBuf;

use crate::agent::pod::resources::QosClass;
use crate::runtime::CgroupDriver;

const TOP: &str = "kubepods";

/// The classes that have a directory of their own; Guaranteed pods lie at the top.
pub const TIERS: [QosClass; 3] = [QosClass::Burstable, QosClass::BestEffort, QosClass::Guaranteed];

/// Names below one root, for one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    driver: CgroupDriver,
    /// The parts of `cgroupRoot`, without slashes.
    root: Vec<String>,
}

impl Names {
    /// Names below `cgroupRoot`.
    pub fn new(driver: CgroupDriver, cgroup_root: &str) -> Self {
        let root = cgroup_root.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { driver, root }
    }

    /// Whether another program makes and removes the directories.
    pub fn is_managed(&self) -> bool {
        self.driver == CgroupDriver::Systemd
    }

    /// The parts of a name below a class, or of the class itself.
    fn parts(&self, class: QosClass, uid: Option<&str>) -> Vec<String> {
        let tier = match class {
            QosClass::Guaranteed => None,
            other => Some(other.to_string().to_lowercase()),
        };
        let own = uid.map(|uid| format!("pod{uid}"));
        self.root.iter().cloned().chain([TOP.to_owned()]).chain(tier).chain(own).collect()
    }

    /// What the runtime is given as the parent of a pod's containers.
    pub fn parent(&self, class: QosClass, uid: &str) -> String {
        let parts = self.parts(class, Some(uid));
        match self.driver {
            CgroupDriver::Cgroupfs => format!("/{}", parts.join("/")),
            CgroupDriver::Systemd => slice(&parts),
        }
    }

    /// The directory of a pod below a cgroup mount.
    pub fn pod_dir(&self, class: QosClass, uid: &str) -> PathBuf {
        self.dir(&self.parts(class, Some(uid)))
    }

    /// The directory of a class below a cgroup mount.
    pub fn tier_dir(&self, class: QosClass) -> PathBuf {
        self.dir(&self.parts(class, None))
    }

    fn dir(&self, parts: &[String]) -> PathBuf {
        match self.driver {
            CgroupDriver::Cgroupfs => parts.iter().collect(),
            CgroupDriver::Systemd => (1..=parts.len()).map(|count| slice(&parts[..count])).collect(),
        }
    }
}

/// systemd's name of a slice: the parts joined by '-', which therefore may not be in a part.
fn slice(parts: &[String]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.replace('-', "_")).collect();
    format!("{}.slice", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_the_kubelets_for_both_drivers() {
        use CgroupDriver::{Cgroupfs, Systemd};
        for (driver, root, class, parent, dir) in [
            (Cgroupfs, "", QosClass::Guaranteed, "/kubepods/poda-b", "kubepods/poda-b"),
            (Cgroupfs, "/", QosClass::Burstable, "/kubepods/burstable/poda-b", "kubepods/burstable/poda-b"),
            (
                Cgroupfs,
                "/x/y",
                QosClass::BestEffort,
                "/x/y/kubepods/besteffort/poda-b",
                "x/y/kubepods/besteffort/poda-b",
            ),
            (Systemd, "", QosClass::Guaranteed, "kubepods-poda_b.slice", "kubepods.slice/kubepods-poda_b.slice"),
            (
                Systemd,
                "",
                QosClass::Burstable,
                "kubepods-burstable-poda_b.slice",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice",
            ),
        ] {
            let names = Names::new(driver, root);
            assert_eq!(names.parent(class, "a-b"), parent);
            assert_eq!(names.pod_dir(class, "a-b"), Path::new(dir));
        }
    }
}
