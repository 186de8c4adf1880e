//! kubeadm's configuration documents and ours, read strictly, defaulted, validated and turned into one [`ClusterSpec`].

pub mod spec;

pub use spec::ClusterSpec;
