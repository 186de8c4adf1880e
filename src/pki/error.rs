//! What can be wrong with certificates, keys and kubeconfigs.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::inspect::InspectError;
use super::key::KeyError;
use crate::host::fs::FsError;
use crate::yaml::EmitError;

/// A phase of certificates or kubeconfigs that failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A name that is in no table.
    #[error("there is no phase {phase:?}; the phases are {}", known.join(", "))]
    UnknownPhase {
        /// What was asked for.
        phase: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// Files that are there and cannot be used, or that cannot be made here. Nothing was written.
    #[error("{}", list(refusals))]
    Refused {
        /// Each of them.
        refusals: Vec<Refusal>,
    },
    /// A validity period beyond the year 9999.
    #[error("a certificate that is valid from {from} for {} hours would end after the year 9999", validity.as_secs() / 3600)]
    Validity {
        /// The start.
        from: Timestamp,
        /// The period.
        validity: std::time::Duration,
    },
    /// A key could not be made.
    #[error("cannot make a private key for {}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A certificate could not be signed.
    #[error("cannot issue {}", path.display())]
    Issue {
        /// The file that would hold it.
        path: PathBuf,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// A kubeconfig could not be put into words.
    #[error("cannot write the YAML of {}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: EmitError,
    },
}

/// Why a certificate could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The new certificate does not chain up to the authority: the certificate and the key of that are no pair.
    #[error("the new certificate is not signed by the CA's key; are the CA's certificate and key a pair?")]
    Unfit,
    /// No authority with a key.
    #[error("there is no CA key to sign it with")]
    Unsigned,
    /// A name that is no ASCII text.
    #[error("{0:?} cannot be a subject alternative name")]
    Name(String),
    /// A time that X.509 has no form for.
    #[error("a validity that X.509 cannot express")]
    Time,
    /// The certificate library refused.
    #[error("the certificate could not be made")]
    Rcgen(#[from] rcgen::Error),
    /// What was made could not be read back.
    #[error("the new certificate cannot be read back")]
    ReadBack(#[from] InspectError),
    /// What the certificate library made is not built as expected.
    #[error("the certificate library has made something unexpected")]
    Form,
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// A file that cannot be used, why, and what to do.
#[derive(Debug)]
pub struct Refusal {
    /// The file, as the node sees it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
    /// What the user can do.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.path.display(), self.problem, self.remedy)
    }
}

/// What is wrong with a file; reads on after its name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No PEM block of the right kind, or one that does not parse.
    #[error("holds no certificate that can be read ({reason})")]
    NoCertificate {
        /// What the parser says.
        reason: String,
    },
    /// No private key, or an encrypted or unknown one.
    #[error("holds no private key that can be used ({reason})")]
    NoKey {
        /// What the parser says; never part of the key.
        reason: String,
    },
    /// No public key.
    #[error("holds no public key")]
    NoPublicKey,
    /// An algorithm that the purpose does not allow.
    #[error("holds an Ed25519 key, which cannot sign service account tokens")]
    Ed25519,
    /// Certificate (or public key) and private key are not a pair.
    #[error("does not belong to the private key in {}", key.display())]
    Mismatch {
        /// The private key's file.
        key: PathBuf,
    },
    /// A certificate without its key.
    #[error("is there, but its private key {} is not", key.display())]
    KeyMissing {
        /// Where the key should be.
        key: PathBuf,
    },
    /// An authority's certificate is gone, while its key and what it signed are there.
    #[error("is missing, while {} and certificates it has signed ({}) are there", key.display(), signed.join(", "))]
    AuthorityGone {
        /// The authority's key.
        key: PathBuf,
        /// What it has signed.
        signed: Vec<String>,
    },
    /// There is nothing that could sign.
    #[error("is missing")]
    NoAuthority,
    /// The authority is run elsewhere, so this file has to come from there.
    #[error("is missing, and {} is not here to sign one", key.display())]
    ExternalAuthority {
        /// The key that is not here.
        key: PathBuf,
    },
    /// An authority that is none.
    #[error("is not a CA certificate")]
    NotAuthority,
    /// A chain that does not end in the authority.
    #[error("is not signed by {}", authority.display())]
    OtherAuthority {
        /// The authority that should have.
        authority: PathBuf,
    },
    /// Past its time.
    #[error("has expired at {at}")]
    Expired {
        /// The end of its validity.
        at: Timestamp,
    },
    /// A server certificate without needed names.
    #[error("does not cover {}", names.join(", "))]
    Names {
        /// The names it lacks.
        names: Vec<String>,
    },
    /// Not a kubeconfig.
    #[error("is no usable kubeconfig ({reason})")]
    Kubeconfig {
        /// What is wrong; never part of its content.
        reason: String,
    },
    /// A kubeconfig whose client certificate is of no use.
    #[error("holds a client certificate that {0}")]
    Client(Box<Problem>),
    /// A kubeconfig without an identity.
    #[error("holds no client certificate and no token")]
    NoClient,
    /// A kubeconfig for another cluster.
    #[error("trusts another CA than the one in {}", authority.display())]
    OtherTrust {
        /// The cluster's authority.
        authority: PathBuf,
    },
}

fn list(refusals: &[Refusal]) -> String {
    match refusals {
        [one] => one.to_string(),
        many => {
            let lines: Vec<String> = many.iter().map(|refusal| format!("\n  {refusal}")).collect();
            format!("{} files stand in the way, nothing was written:{}", many.len(), lines.concat())
        }
    }
}
