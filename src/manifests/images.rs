//! Image references.

use crate::config::spec::{ClusterSpec, EtcdSpec, LocalEtcd};
use crate::release::find;

/// kubeadm's default `imageRepository`, the only one with a `coredns/` level.
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";

/// One image that a control-plane node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentImage {
    /// `kube-apiserver`, ..., `pause`, `etcd`.
    pub component: &'static str,
    /// The reference, `registry.k8s.io/kube-apiserver:v1.36.2`.
    pub reference: String,
    /// Whether the node comes up without it. The pause image is: a pod with one container on the host's network needs
    /// no container that holds the network.
    pub optional: bool,
}

/// What a control-plane node runs, in the order of `kubeadm config images list`; no etcd when that is external.
pub fn images(spec: &ClusterSpec) -> Vec<ComponentImage> {
    let tag = spec.kubernetes_version.image_tag();
    let mut images: Vec<ComponentImage> = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        .into_iter()
        .map(|component| ComponentImage {
            component,
            reference: format!("{}/{component}:{tag}", spec.image_repository),
            optional: false,
        })
        .collect();
    images.push(ComponentImage { component: "pause", reference: pause_image(spec), optional: true });
    if let EtcdSpec::Local(local) = &spec.etcd {
        images.push(ComponentImage { component: "etcd", reference: etcd_image(spec, local), optional: false });
    }
    images
}

/// What `kubeadm config images list` names for the cluster, in its order: with those of the addons that are not disabled.
pub fn cluster_images(spec: &ClusterSpec) -> Vec<String> {
    let mut found = Vec::new();
    for image in images(spec) {
        if image.component == "pause" {
            if !spec.proxy.disabled {
                found.push(kube_proxy_image(spec));
            }
            if !spec.dns.disabled {
                found.push(coredns_image(spec));
            }
        }
        found.push(image.reference);
    }
    found
}

/// The image of the local etcd: its own repository and tag where they are given, else the cluster's and the release's.
pub fn etcd_image(spec: &ClusterSpec, local: &LocalEtcd) -> String {
    let repository = local.image_repository.as_deref().unwrap_or(&spec.image_repository);
    let tag = local.image_tag.as_deref().unwrap_or(find(&spec.kubernetes_version).row.etcd_tag);
    format!("{repository}/etcd:{tag}")
}

/// The image that holds a pod's network.
pub fn pause_image(spec: &ClusterSpec) -> String {
    format!("{}/pause:{}", spec.image_repository, find(&spec.kubernetes_version).row.pause_tag)
}

/// The kube-proxy image.
pub fn kube_proxy_image(spec: &ClusterSpec) -> String {
    format!("{}/kube-proxy:{}", spec.image_repository, spec.kubernetes_version.image_tag())
}

/// The CoreDNS image: from `dns`'s repository and of its tag where they are given. As in kubeadm only the default
/// repository has a `coredns/` level, and not where it is named for DNS alone.
pub fn coredns_image(spec: &ClusterSpec) -> String {
    let row = find(&spec.kubernetes_version).row;
    let tag = spec.dns.image_tag.as_deref().unwrap_or(row.coredns_tag);
    if let Some(repository) = &spec.dns.image_repository {
        return format!("{repository}/coredns:{tag}");
    }
    let level = if row.coredns_nested && spec.image_repository == DEFAULT_REPOSITORY { "/coredns" } else { "" };
    format!("{}{level}/coredns:{tag}", spec.image_repository)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spec::ExternalEtcd;

    fn references(spec: &ClusterSpec) -> Vec<String> {
        images(spec).into_iter().map(|image| image.reference).collect()
    }

    #[test]
    fn the_images_of_1_36_2_are_kubeadms() {
        assert_eq!(
            references(&crate::testing::spec()),
            [
                "registry.k8s.io/kube-apiserver:v1.36.2",
                "registry.k8s.io/kube-controller-manager:v1.36.2",
                "registry.k8s.io/kube-scheduler:v1.36.2",
                "registry.k8s.io/pause:3.10.2",
                "registry.k8s.io/etcd:3.6.8-0",
            ]
        );
        assert_eq!(coredns_image(&crate::testing::spec()), "registry.k8s.io/coredns/coredns:v1.14.2");
    }

    #[test]
    fn the_images_of_the_cluster_are_in_kubeadms_order() {
        let mut spec = crate::testing::spec();
        let expected = [
            "registry.k8s.io/kube-apiserver:v1.36.2",
            "registry.k8s.io/kube-controller-manager:v1.36.2",
            "registry.k8s.io/kube-scheduler:v1.36.2",
            "registry.k8s.io/kube-proxy:v1.36.2",
            "registry.k8s.io/coredns/coredns:v1.14.2",
            "registry.k8s.io/pause:3.10.2",
            "registry.k8s.io/etcd:3.6.8-0",
        ];
        assert_eq!(cluster_images(&spec), expected);
        (spec.dns.disabled, spec.proxy.disabled) = (true, true);
        assert_eq!(cluster_images(&spec), [&expected[..3], &expected[5..]].concat());
    }

    #[test]
    fn only_the_pause_image_may_be_missing() {
        let optional: Vec<_> = images(&crate::testing::spec()).into_iter().filter(|image| image.optional).collect();
        assert_eq!(optional.iter().map(|image| image.component).collect::<Vec<_>>(), ["pause"]);
    }

    #[test]
    fn a_repository_of_ones_own_holds_everything_but_a_pinned_etcd() {
        let mut spec = crate::testing::spec();
        spec.image_repository = "registry.example.com/k8s".into();
        let EtcdSpec::Local(local) = &mut spec.etcd else { unreachable!() };
        local.image_repository = Some("quay.io/coreos".into());
        local.image_tag = Some("v3.6.1".into());
        assert_eq!(references(&spec)[4], "quay.io/coreos/etcd:v3.6.1");
        assert_eq!(coredns_image(&spec), "registry.example.com/k8s/coredns:v1.14.2");
        spec.dns.image_repository = Some("registry.k8s.io".into());
        spec.dns.image_tag = Some("v1.9.3".into());
        assert_eq!(coredns_image(&spec), "registry.k8s.io/coredns:v1.9.3");
        assert_eq!(kube_proxy_image(&spec), "registry.example.com/k8s/kube-proxy:v1.36.2");
    }

    #[test]
    fn external_etcd_needs_no_etcd_image() {
        let mut spec = crate::testing::spec();
        spec.etcd = EtcdSpec::External(ExternalEtcd {
            endpoints: vec!["https://10.1.0.1:2379".into()],
            http_endpoints: vec![],
            ca_file: None,
            cert_file: None,
            key_file: None,
        });
        assert!(images(&spec).iter().all(|image| image.component != "etcd"));
    }
}
