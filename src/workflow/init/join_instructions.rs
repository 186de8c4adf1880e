//! kubeadm's words at the end: how to use the cluster, and how other nodes join it.

use super::generated_secrets::GeneratedSecrets;
use crate::cluster::join_command::JoinCommand;
use crate::config::ClusterSpec;
use crate::config::spec::CaPin;

/// What stands in the place of a secret that is not to be shown.
const WITHHELD: &str = "<value withheld>";

/// How to use the cluster; `admin` is the path of admin.conf.
pub fn usage(admin: &str) -> String {
    format!(
        "To start using your cluster, you need to run the following as a regular user:\n\n  \
         mkdir -p $HOME/.kube\n  sudo cp -i {admin} $HOME/.kube/config\n  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\n\
         Alternatively, if you are the root user, you can run:\n\n  export KUBECONFIG={admin}\n\n\
         You should now deploy a pod network to the cluster.\n\
         Run \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:\n  \
         https://kubernetes.io/docs/concepts/cluster-administration/addons/\n\n"
    )
}

/// The whole of it, once for each token.
pub fn text(spec: &ClusterSpec, admin: &str, generated_secrets: &GeneratedSecrets, pins: &[CaPin]) -> String {
    let endpoint = spec.shared_endpoint().to_string();
    let key = match spec.hide_secrets.certificate_key {
        true => WITHHELD.to_owned(),
        false => generated_secrets.certificate_key.reveal(),
    };
    let mut text = String::new();
    if generated_secrets.tokens.is_empty() {
        text.push_str("\nYour Kubernetes control-plane has initialized successfully!\n\n");
        text.push_str(&usage(admin));
        text.push_str("Nodes join it with what `kubeboot token create --print-join-command` prints.\n");
    }
    for token in &generated_secrets.tokens {
        let token = if spec.hide_secrets.token { WITHHELD.to_owned() } else { token.token.reveal() };
        let worker =
            JoinCommand { endpoint: &endpoint, token: &token, pins, control_plane: false, certificate_key: None };
        let certificate_key = Some(key.as_str()).filter(|_| spec.upload_certs);
        let control_plane = JoinCommand { control_plane: true, certificate_key, ..worker.clone() };
        text.push_str("\nYour Kubernetes control-plane has initialized successfully!\n\n");
        text.push_str(&usage(admin));
        if spec.control_plane_endpoint.is_some() {
            text.push_str(&for_control_planes(&control_plane.lines(), spec.upload_certs));
        }
        text.push_str(&format!(
            "Then you can join any number of worker nodes by running the following on each as root:\n\n{}\n",
            worker.lines()
        ));
    }
    text
}

fn for_control_planes(command: &str, uploaded: bool) -> String {
    match uploaded {
        true => format!(
            "You can now join any number of the control-plane node running the following command on each as root:\n\n  \
             {command}\n\n\
             Please note that the certificate-key gives access to cluster sensitive data, keep it secret!\n\
             As a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use\n\
             \"kubeboot init phase upload-certs --upload-certs\" to reload certs afterward.\n\n"
        ),
        false => format!(
            "You can now join any number of control-plane nodes by copying certificate authorities\n\
             and service account keys on each node and then running the following as root:\n\n  {command}\n\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(change: impl Fn(&mut ClusterSpec)) -> String {
        let mut spec = crate::testing::spec();
        spec.bootstrap_tokens[0].token = Some("abcdef.0123456789abcdef".parse().unwrap());
        spec.certificate_key = Some("0f".repeat(32).parse().unwrap());
        change(&mut spec);
        let pins = [format!("sha256:{}", "a".repeat(64)).parse().unwrap()];
        text(&spec, "/etc/kubernetes/admin.conf", &GeneratedSecrets::new(&spec).unwrap(), &pins)
    }

    #[test]
    fn workers_are_joined_by_kubeadms_command() {
        let text = said(|_| ());
        let tail = format!(
            "Then you can join any number of worker nodes by running the following on each as root:\n\n\
             kubeadm join 10.0.0.5:6443 --token abcdef.0123456789abcdef \\\n\t--discovery-token-ca-cert-hash \
             sha256:{}\n",
            "a".repeat(64)
        );
        assert!(text.starts_with("\nYour Kubernetes control-plane has initialized successfully!\n"), "{text}");
        assert!(text.ends_with(&tail) && !text.contains("control-plane node"), "{text}");
    }

    #[test]
    fn control_planes_are_joined_where_they_have_an_endpoint() {
        let endpoint = |spec: &mut ClusterSpec| {
            spec.control_plane_endpoint = Some(crate::config::spec::Endpoint { host: "k.example".into(), port: 6443 });
        };
        let text = said(endpoint);
        assert!(text.contains("copying certificate authorities") && text.contains("\t--control-plane\n"), "{text}");
        let text = said(|spec| {
            endpoint(spec);
            spec.upload_certs = true;
        });
        assert!(text.contains(&format!("--control-plane --certificate-key {}\n", "0f".repeat(32))), "{text}");
        assert_eq!(text.matches("kubeadm join k.example:6443 --token").count(), 2);
    }

    #[test]
    fn secrets_that_are_not_to_be_printed_are_not() {
        let text = said(|spec| {
            spec.control_plane_endpoint = Some(crate::config::spec::Endpoint { host: "k.example".into(), port: 6443 });
            spec.upload_certs = true;
            spec.hide_secrets = crate::config::spec::HideSecrets { token: true, certificate_key: true };
        });
        assert!(!text.contains("0123456789") && !text.contains("0f0f"), "{text}");
        assert_eq!(text.matches("--token <value withheld>").count(), 2);
        assert!(text.contains("--certificate-key <value withheld>"), "{text}");
    }
}
