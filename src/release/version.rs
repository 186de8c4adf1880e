//! A Kubernetes version, `v1.36.2`.

use std::fmt;
use std::str::FromStr;

/// `vX.Y.Z[-pre][+build]`; the leading `v` may be left out when read and is always written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesVersion(semver::Version);

/// A text that is no Kubernetes version.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a Kubernetes version such as v1.36.2")]
pub struct VersionError {
    /// What was given.
    pub text: String,
    /// Why it does not parse.
    #[source]
    pub source: semver::Error,
}

impl KubernetesVersion {
    /// The minor number: 36 of v1.36.2.
    pub fn minor(&self) -> u64 {
        self.0.minor
    }

    /// The patch number.
    pub fn patch(&self) -> u64 {
        self.0.patch
    }

    /// Whether this is an alpha, beta or release candidate.
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }

    /// The whole as semver.
    pub fn semver(&self) -> &semver::Version {
        &self.0
    }

    /// The tag that images of this version carry: `+` is not allowed in tags and becomes `_`, as kubeadm does it.
    pub fn image_tag(&self) -> String {
        self.to_string().replace('+', "_")
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for KubernetesVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let bare = text.trim();
        let bare = bare.strip_prefix('v').unwrap_or(bare);
        semver::Version::parse(bare).map(Self).map_err(|source| VersionError { text: text.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_with_and_without_v_and_writes_with_it() {
        for text in ["v1.36.2", "1.36.2"] {
            assert_eq!(text.parse::<KubernetesVersion>().unwrap().to_string(), "v1.36.2");
        }
        assert_eq!("1.36.0-rc.1+a".parse::<KubernetesVersion>().unwrap().image_tag(), "v1.36.0-rc.1_a");
        assert!("v1.36".parse::<KubernetesVersion>().is_err());
    }
}
