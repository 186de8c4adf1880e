//! Component settings -> askama template -> typed Pod -> patches -> file.
pub const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
