//! What differs from one kubelet to the next, for the code that starts one.

use super::KubernetesVersion;

/// Stands for the URL of the runtime's socket among the flags of a row.
const SOCKET: &str = "";

/// What a kubelet takes. Apart from [`super::Release`], because a node's kubelet may be older than its cluster.
#[derive(Debug)]
pub struct KubeletRow {
    /// First minor of the row.
    pub since: u64,
    /// Flags that name the runtime; an empty value stands for its socket.
    runtime_flags: &'static [(&'static str, &'static str)],
    /// Whether `containerRuntimeEndpoint` in config.yaml names the runtime.
    pub endpoint_in_config: bool,
    /// Programs it needs beside it on the PATH.
    pub programs: &'static [&'static str],
    /// Whether it starts where control groups are version 1.
    pub runs_on_cgroup_v1: bool,
}

const REMOTE: &[(&str, &str)] = &[("container-runtime", "remote"), ("container-runtime-endpoint", SOCKET)];

/// Oldest first.
static ROWS: [KubeletRow; 4] = [
    KubeletRow {
        since: 0,
        runtime_flags: REMOTE,
        endpoint_in_config: false,
        programs: &["conntrack", "losetup", "mount", "cp"],
        runs_on_cgroup_v1: true,
    },
    // 1.27 has the field and knows --container-runtime no more.
    KubeletRow {
        since: 27,
        runtime_flags: &[],
        endpoint_in_config: true,
        programs: &["conntrack", "losetup", "mount", "cp"],
        runs_on_cgroup_v1: true,
    },
    KubeletRow {
        since: 32,
        runtime_flags: &[],
        endpoint_in_config: true,
        programs: &["losetup", "mount", "cp"],
        runs_on_cgroup_v1: true,
    },
    KubeletRow {
        since: 35,
        runtime_flags: &[],
        endpoint_in_config: true,
        programs: &["losetup", "mount", "cp"],
        runs_on_cgroup_v1: false,
    },
];

/// How many minors a kubelet may be behind its API server: three from this one on, two before.
const THREE_BEHIND_FROM: u64 = 25;

fn skew(kubelet: &KubernetesVersion) -> u64 {
    if kubelet.minor() < THREE_BEHIND_FROM { 2 } else { 3 }
}

/// Whether a kubelet is too old for a control plane.
pub fn is_kubelet_too_old(kubelet: &KubernetesVersion, control_plane: &KubernetesVersion) -> bool {
    kubelet.minor() + skew(kubelet) < control_plane.minor()
}

/// The row of a kubelet.
pub fn kubelet_row(kubelet: &KubernetesVersion) -> &'static KubeletRow {
    ROWS.iter().rev().find(|row| row.since <= kubelet.minor()).unwrap_or(&ROWS[0])
}

impl KubeletRow {
    /// The flags that name the runtime at `socket`.
    pub fn runtime_flags(&self, socket: &str) -> Vec<(String, String)> {
        let value = |value: &str| if value == SOCKET { socket.to_owned() } else { value.to_owned() };
        self.runtime_flags.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect()
    }
}

/// Why a kubelet does not go with a control plane; None where it does.
pub fn kubelet_refusal(kubelet: &KubernetesVersion, control_plane: &KubernetesVersion) -> Option<String> {
    let (mine, theirs) = (kubelet.minor(), control_plane.minor());
    if mine > theirs {
        return Some(format!(
            "the kubelet is {kubelet}, newer than the control plane ({control_plane}): install one of 1.{theirs}, or \
             upgrade the control plane first"
        ));
    }
    is_kubelet_too_old(kubelet, control_plane).then(|| {
        let skew = skew(kubelet);
        let oldest = theirs.saturating_sub(skew);
        format!(
            "the kubelet is {kubelet}, more than {skew} minors older than the control plane ({control_plane}): install \
             one from 1.{oldest} to 1.{theirs}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> KubernetesVersion {
        text.parse().unwrap()
    }

    #[test]
    fn the_runtime_is_named_where_the_kubelet_looks_for_it() {
        let flags = |text| kubelet_row(&version(text)).runtime_flags("unix:///run/c.sock");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let remote = [pair("container-runtime", "remote"), pair("container-runtime-endpoint", "unix:///run/c.sock")];
        assert_eq!(flags("v1.20.2"), remote);
        assert_eq!(flags("v1.26.0"), remote);
        assert!(flags("v1.27.0").is_empty() && kubelet_row(&version("v1.36.2")).endpoint_in_config);
        assert!(!kubelet_row(&version("v1.26.0")).endpoint_in_config);
    }

    #[test]
    fn tools_and_cgroups_are_those_of_the_release() {
        let needs = |text| kubelet_row(&version(text)).programs.contains(&"conntrack");
        assert!(needs("v1.20.2") && needs("v1.31.9") && !needs("v1.32.0"));
        assert!(
            kubelet_row(&version("v1.34.0")).runs_on_cgroup_v1 && !kubelet_row(&version("v1.35.0")).runs_on_cgroup_v1
        );
    }

    #[test]
    fn a_kubelet_may_be_three_minors_behind_and_none_ahead() {
        for (kubelet, control_plane, words) in [
            ("v1.36.2", "v1.36.0", None),
            ("v1.33.0", "v1.36.2", None),
            ("v1.32.9", "v1.36.2", Some("more than 3 minors older")),
            ("v1.37.0", "v1.36.2", Some("newer than the control plane")),
            ("v1.20.2", "v1.20.2", None),
            ("v1.20.2", "v1.22.0", None),
            ("v1.20.2", "v1.23.0", Some("more than 2 minors older")),
            ("v1.25.0", "v1.28.0", None),
        ] {
            let refusal = kubelet_refusal(&version(kubelet), &version(control_plane));
            assert_eq!(refusal.is_some(), words.is_some(), "{kubelet} with {control_plane}");
            assert!(words.is_none_or(|words| refusal.unwrap().contains(words)));
        }
    }
}
