//! Versions: which image, flag, probe path and etcd belongs to which Kubernetes minor. The only place that compares
//! versions; everything else asks a [`Release`].

mod version;

pub use version::{KubernetesVersion, VersionError};
