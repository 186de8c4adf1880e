//! Flags of `kubeboot agent`: the kubelet's, from the table of those that are known, with what the help says of those that
//! are followed.

use clap::error::ErrorKind;
use clap::{ArgAction, ArgMatches, FromArgMatches};

use crate::agent::options::{self, FlagRow, Flags, Role};

/// A flag, what stands for its value, and what it does.
type Help = (&'static str, &'static str, &'static str);

/// What the help shows, in its order, below its headings.
const HELP: &[(&str, &[Help])] = &[
    (
        "Options",
        &[
            ("config", "FILE", "KubeletConfiguration file"),
            ("config-dir", "DIR", "Directory of drop-in files (*.conf), each merged over the file and those before it"),
            ("pod-manifest-path", "PATH", "Directory of manifests, or one manifest; staticPodPath of the file"),
            ("manifest-url", "URL", "URL of a manifest or a list of pods; staticPodURL of the file"),
            ("manifest-url-header", "HEADERS", "Headers of the requests to it: name:value,name2:value2"),
            ("http-check-frequency", "DURATION", "How often it is asked [default: 20s]"),
            ("hostname-override", "NAME", "Name of the node, which pods' names end with [default: the host name]"),
            (
                "root-dir",
                "DIR",
                "Directory for volumes; agents with different ones live side by side [default: /var/lib/kubelet]",
            ),
            (
                "file-check-frequency",
                "DURATION",
                "How often the manifests are listed whatever the watch says [default: 20s]",
            ),
            ("sync-frequency", "DURATION", "How often every pod is looked at whatever its events say [default: 1m]"),
            ("healthz-port", "PORT", "Port of /healthz, 0 for none [default: 10248]"),
            ("healthz-bind-address", "IP", "Address of /healthz [default: 127.0.0.1]"),
            ("pod-infra-container-image", "IMAGE", "Image of pause containers"),
            ("cluster-dns", "IP", "Name servers of pods"),
            ("cluster-domain", "DOMAIN", "Search domain of pods"),
            ("resolv-conf", "FILE", "The machine's resolver file, for pods"),
            (
                "allowed-unsafe-sysctls",
                "NAMES",
                "Kernel parameters that pods may set beside the safe ones (net.core.*)",
            ),
            ("oom-score-adj", "N", "The agent's own OOM score [default: -999]"),
            ("seccomp-default", "BOOL", "Give containers without a seccomp profile the runtime's"),
            ("cpu-cfs-quota", "BOOL", "Enforce CPU limits [default: true]"),
            ("cpu-cfs-quota-period", "DURATION", "The period over which they are enforced [default: 100ms]"),
            (
                "container-log-max-size",
                "QUANTITY",
                "Bytes at which a container's log is rotated; negative for never [default: 10Mi]",
            ),
            ("container-log-max-files", "N", "How many files of a container's log are kept [default: 5]"),
            ("feature-gates", "GATES", "Name=true,...; PodsAPI serves the pods on a socket below the root directory"),
            ("read-only-port", "PORT", "Port of the kubelet's read-only paths, 0 for none [default: 0]"),
            ("address", "IP", "Address of the read-only port [default: 127.0.0.1]"),
            ("cgroups-per-qos", "BOOL", "Give pods cgroups of their own, by quality of service [default: true]"),
            ("cgroup-root", "PATH", "The cgroup below which pods' cgroups are"),
            ("pod-max-pids", "N", "The most processes of a pod, -1 for no limit [default: -1]"),
            ("serialize-image-pulls", "BOOL", "Pull one image at a time [default: true]"),
            (
                "container-runtime-endpoint",
                "SOCKET",
                "Socket of the container runtime, a unix:// URL [default: Docker, else the only one that speaks CRI]",
            ),
            ("version", "BOOL", "Print the version, and run nothing"),
        ],
    ),
    (
        "kubeboot's own options",
        &[
            (
                "control-socket",
                "PATH",
                "Control socket, where `kubeboot status` asks [default: /run/kubeboot/agent.sock]",
            ),
            (
                "docker-host",
                "ADDRESS",
                "Address of the Docker engine [default: DOCKER_HOST, else unix:///var/run/docker.sock]",
            ),
        ],
    ),
    (
        "Cluster options",
        &[
            (
                "kubeconfig",
                "FILE",
                "Credentials for the API server, waited for if not there; without it the agent knows no cluster",
            ),
            (
                "bootstrap-kubeconfig",
                "FILE",
                "Credentials to ask for a first client certificate with, while --kubeconfig is not there",
            ),
            (
                "cert-dir",
                "DIR",
                "Directory of certificates that the cluster has signed [default: pki in the root directory]",
            ),
            ("node-ip", "IP", "Address of the node, or one of each family"),
            ("node-labels", "LABELS", "Labels of the Node: name=value,name2=value2"),
            ("register-node", "BOOL", "Make the Node if there is none [default: true]"),
            ("register-with-taints", "TAINTS", "Taints it is made with: key=value:effect,..."),
            ("node-status-update-frequency", "DURATION", "How often its status is computed [default: 10s]"),
            ("node-status-max-images", "N", "The most images in its status, -1 for all [default: 50]"),
            ("max-pods", "N", "The most pods of the node, as its status says [default: 110]"),
            ("system-reserved", "RESOURCES", "What pods cannot have: cpu=100m,memory=1Gi"),
            ("kube-reserved", "RESOURCES", "What pods cannot have besides"),
            (
                "eviction-hard",
                "THRESHOLDS",
                "When memory and disk are short, which pods cannot have either: memory.available<100Mi,nodefs.available<10%",
            ),
            ("provider-id", "ID", "The machine's name at its cloud"),
            ("rotate-certificates", "BOOL", "Renew the client certificate before it expires [default: false]"),
            ("rotate-server-certificates", "BOOL", "Ask the cluster for the serving certificate [default: false]"),
        ],
    ),
    (
        "API options",
        &[
            ("enable-server", "BOOL", "Serve the kubelet's API [default: true]"),
            (
                "port",
                "PORT",
                "Port of the kubelet's API, 0 for none [default: 10250 where there is an API server, else 0]",
            ),
            ("tls-cert-file", "FILE", "Certificate to serve with [default: one of the agent's own]"),
            ("tls-private-key-file", "FILE", "Its key"),
            ("tls-min-version", "VERSION", "VersionTLS12 or VersionTLS13 [default: VersionTLS12]"),
            ("tls-cipher-suites", "NAMES", "Cipher suites of TLS 1.2 [default: all that are safe]"),
            ("anonymous-auth", "BOOL", "Let in who says nothing of himself [default: false]"),
            ("client-ca-file", "FILE", "Authorities of client certificates"),
            ("authentication-token-webhook", "BOOL", "Ask the API server whose a token is [default: true]"),
            ("authentication-token-webhook-cache-ttl", "DURATION", "How long it is believed [default: 2m]"),
            ("authorization-mode", "MODE", "AlwaysAllow, or Webhook to ask the API server [default: Webhook]"),
            (
                "authorization-webhook-cache-authorized-ttl",
                "DURATION",
                "How long it is believed that somebody may do something [default: 5m]",
            ),
            (
                "authorization-webhook-cache-unauthorized-ttl",
                "DURATION",
                "How long it is believed that somebody may not [default: 30s]",
            ),
            ("enable-debugging-handlers", "BOOL", "Serve logs, commands and streams of containers [default: true]"),
            ("streaming-connection-idle-timeout", "DURATION", "How long a stream may be silent [default: 4h]"),
        ],
    ),
];

/// The flags as they were given.
#[derive(Debug)]
pub struct FlagArgs(pub Flags);

impl FlagArgs {
    fn rows() -> impl Iterator<Item = &'static FlagRow> {
        options::flags().filter(|row| !matches!(row.role, Role::Global))
    }
}

fn arg(row: &'static FlagRow) -> clap::Arg {
    let kind = row.kind;
    let read = move |text: &str| kind.read(text).map(|_| text.to_owned());
    let arg = clap::Arg::new(row.name).long(row.name).action(ArgAction::Append).value_parser(read);
    match kind.is_switch() {
        true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        // Whatever comes behind it is its value, as with the kubelet.
        false => arg.num_args(1).allow_hyphen_values(true),
    }
}

impl clap::Args for FlagArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let shown = HELP.iter().flat_map(|(heading, rows)| rows.iter().map(move |row| (*heading, row)));
        let shown: Vec<(&str, &Help)> = shown.collect();
        let of = |name: &str| shown.iter().position(|(_, (known, ..))| *known == name);
        let mut rows: Vec<_> = Self::rows().map(|row| (of(row.name), row)).collect();
        rows.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
        rows.into_iter().fold(command, |command, (place, row)| match place.map(|place| shown[place]) {
            Some(("Options", (_, value, help))) => command.arg(arg(row).value_name(*value).help(*help)),
            Some((heading, (_, value, help))) => {
                command.arg(arg(row).value_name(*value).help(*help).help_heading(heading))
            }
            None => command.arg(arg(row).hide(true)),
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FlagArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        let all = Self::rows().filter_map(|row| Some((row, matches.get_many::<String>(row.name)?)));
        for (row, value) in all.flat_map(|(row, values)| values.map(move |value| (row, value))) {
            // It has been read once by the argument's own reader.
            let given =
                row.kind.read(value).map_err(|problem| clap::Error::raw(ErrorKind::ValueValidation, problem))?;
            flags.set(row, given);
        }
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_help_tells_of_every_flag_that_is_followed_and_of_no_other() {
        let followed: BTreeSet<&str> =
            FlagArgs::rows().filter(|row| matches!(row.role, Role::Followed(_))).map(|row| row.name).collect();
        let told: BTreeSet<&str> = HELP.iter().flat_map(|(_, rows)| rows.iter().map(|(name, ..)| *name)).collect();
        assert_eq!(told, followed);
    }
}
