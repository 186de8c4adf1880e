//! The command that joins a node, in the form that kubeadm prints.

use crate::config::spec::CaPin;

/// What the command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCommand<'a> {
    /// `host:port` of the API server.
    pub endpoint: &'a str,
    /// The token, or what stands for one that is not to be shown.
    pub token: &'a str,
    /// The keys of the cluster's CA.
    pub pins: &'a [CaPin],
    /// Whether the node becomes one of the control plane's.
    pub control_plane: bool,
    /// The key of uploaded certificates, or what stands for it.
    pub certificate_key: Option<&'a str>,
}

impl JoinCommand<'_> {
    /// The command over several lines, each but the last ending in a backslash.
    pub fn lines(&self) -> String {
        self.joined(" \\\n\t")
    }

    /// The same in one line, for programs.
    pub fn line(&self) -> String {
        self.joined(" ")
    }

    fn joined(&self, separator: &str) -> String {
        let mut parts = vec![format!("kubeadm join {} --token {}", self.endpoint, self.token)];
        let pins: Vec<_> = self.pins.iter().map(|pin| format!("--discovery-token-ca-cert-hash {pin}")).collect();
        parts.push(pins.join(" "));
        if self.control_plane {
            let key = self.certificate_key.map(|key| format!(" --certificate-key {key}")).unwrap_or_default();
            parts.push(format!("--control-plane{key}"));
        }
        parts.join(separator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_kubeadms() {
        let pins: Vec<CaPin> = ["a", "b"].map(|digit| format!("sha256:{}", digit.repeat(64)).parse().unwrap()).to_vec();
        let mut command = JoinCommand {
            endpoint: "10.0.0.5:6443",
            token: "abcdef.0123456789abcdef",
            pins: &pins[..1],
            control_plane: false,
            certificate_key: None,
        };
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let worker = format!(
            "kubeadm join 10.0.0.5:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:{a}"
        );
        assert_eq!(command.line(), worker);
        command.pins = &pins;
        command.control_plane = true;
        assert_eq!(command.line(), format!("{worker} --discovery-token-ca-cert-hash sha256:{b} --control-plane"));
        command.certificate_key = Some("k");
        let lines = format!(
            "kubeadm join 10.0.0.5:6443 --token abcdef.0123456789abcdef \\\n\t--discovery-token-ca-cert-hash \
             sha256:{a} --discovery-token-ca-cert-hash sha256:{b} \\\n\t--control-plane --certificate-key k"
        );
        assert_eq!(command.lines(), lines);
    }
}
