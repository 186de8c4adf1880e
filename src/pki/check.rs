//! Whether what is there can be used. Pure: certificates in, the first problem out.

use std::path::Path;

use jiff::Timestamp;

use super::error::Problem;
use super::inspect::{self, Certificate};
use super::key::PrivateKey;
use super::table::{San, Usage};

/// The certificates of a file.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, Problem> {
    inspect::read(pem).map_err(|error| Problem::NoCertificate { reason: error.to_string() })
}

/// The private key of a file.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKey, Problem> {
    PrivateKey::load(pem).map_err(|error| Problem::NoKey { reason: error.to_string() })
}

/// What a file that is used all the same lacks; reads on after its name.
pub(super) type Doubts = Vec<String>;

/// Whether a certificate is valid at `now`, or will be: kubeadm takes one whose time is still to come, for the clock of
/// the machine that made it may be ahead.
pub(super) fn time(certificate: &Certificate, now: Timestamp) -> Result<Doubts, Problem> {
    match certificate {
        c if now > c.not_after => Err(Problem::Expired { at: c.not_after }),
        c if now < c.not_before => {
            let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
            Ok(vec![format!("is not valid before {}, and it is {now}; is the clock right?", c.not_before)])
        }
        _ => Ok(vec![]),
    }
}

/// Whether a certificate is an authority's that is valid at `now`.
pub(super) fn authority(certificate: &Certificate, now: Timestamp) -> Result<Doubts, Problem> {
    if !certificate.is_authority {
        return Err(Problem::NotAuthority);
    }
    time(certificate, now)
}

/// What a certificate has to satisfy.
pub(super) struct Expected<'a> {
    /// The file of the authority, for messages.
    pub(super) authority: &'a Path,
    /// What that file holds.
    pub(super) trusted: &'a [Certificate],
    /// What it is used for.
    pub(super) usages: &'a [Usage],
    /// What a server certificate has to cover.
    pub(super) sans: Vec<San>,
    /// When.
    pub(super) now: Timestamp,
}

/// Whether a certificate file (intermediate authorities may follow the certificate) belongs to its key, is valid, ends
/// in a trusted authority, and has its names. An extended usage that it lacks is a doubt alone, as kubeadm asks for none.
pub(super) fn pair(pem: &[u8], key: &PrivateKey, key_path: &Path, expected: &Expected<'_>) -> Result<Doubts, Problem> {
    let chain = certificates(pem)?;
    let Some(own) = chain.first().filter(|own| own.is_for(key)) else {
        return Err(Problem::Mismatch { key: key_path.to_owned() });
    };
    let mut doubts = time(own, expected.now)?;
    if !chains(&chain, expected.trusted, expected.now) {
        return Err(Problem::OtherAuthority { authority: expected.authority.to_owned() });
    }
    let lacks = |usage: &&Usage| own.usages.as_ref().is_some_and(|has| !has.contains(usage));
    let lacking: Vec<String> = expected.usages.iter().filter(lacks).map(Usage::to_string).collect();
    if !lacking.is_empty() {
        doubts.push(format!("may not be used for {}, for which it is used", lacking.join(" and ")));
    }
    if expected.usages.contains(&Usage::Server) {
        names(own, &expected.sans)?;
    }
    Ok(doubts)
}

/// Whether each certificate is signed by the next, up to one that a trusted one has signed.
fn chains(chain: &[Certificate], trusted: &[Certificate], now: Timestamp) -> bool {
    for (at, certificate) in chain.iter().enumerate() {
        if trusted.iter().any(|authority| certificate.is_signed_by(authority)) {
            return true;
        }
        let next = chain.get(at + 1);
        if !next.is_some_and(|next| authority(next, now).is_ok() && certificate.is_signed_by(next)) {
            return false;
        }
    }
    false
}

/// Whether a certificate has every one of `names`.
fn names(certificate: &Certificate, names: &[San]) -> Result<(), Problem> {
    let lacking: Vec<String> =
        names.iter().filter(|name| !certificate.sans.iter().any(|has| covers(has, name))).map(San::to_string).collect();
    if lacking.is_empty() { Ok(()) } else { Err(Problem::Names { names: lacking }) }
}

/// Whether a name in a certificate stands for `wanted`: equal but for case, or a wildcard for its first label.
fn covers(has: &San, wanted: &San) -> bool {
    match (has, wanted) {
        (San::Ip(has), San::Ip(wanted)) => has == wanted,
        (San::Dns(has), San::Dns(wanted)) => {
            let rest = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_ascii_lowercase());
            has.eq_ignore_ascii_case(wanted)
                || (has.starts_with("*.") && !wanted.starts_with('*') && rest(has) == rest(wanted))
        }
        _ => false,
    }
}
