//! Making certificates.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::error::{IssueError, PkiError};
use super::inspect::{self, Certificate};
use super::key::PrivateKey;
use super::subject;
use super::table::{San, Usage};

/// By how much the start of a certificate lies in the past, so that machines whose clocks are behind take it, as
/// kubeadm does it.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Window {
    /// `validity` counted from `now`, and a start that is a little in the past.
    pub(super) fn backdated(now: Timestamp, validity: Duration) -> Result<Self, PkiError> {
        let out_of_range = |_| PkiError::Validity { from: now, validity };
        Self::from(now.checked_sub(BACKDATE).map_err(out_of_range)?, now, validity)
    }

    /// For a request, which says nothing of it.
    pub(super) fn unset() -> Self {
        Self { not_before: Timestamp::UNIX_EPOCH, not_after: Timestamp::UNIX_EPOCH }
    }

    /// `validity` counted from `now`, starting at `not_before`.
    pub(super) fn from(not_before: Timestamp, now: Timestamp, validity: Duration) -> Result<Self, PkiError> {
        let out_of_range = |_| PkiError::Validity { from: now, validity };
        Ok(Self { not_before, not_after: now.checked_add(validity).map_err(out_of_range)? })
    }
}

/// What a certificate is to say.
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) usages: Vec<Usage>,
    pub(super) sans: Vec<San>,
    pub(super) window: Window,
}

/// Makes a self-signed authority on `key`, as PEM.
pub(super) fn authority(request: &Request, key: &PrivateKey) -> Result<String, IssueError> {
    let mut params = params(request)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    Ok(params.self_signed(key.pair())?.pem())
}

/// Makes a certificate for `key`, signed by the authority whose certificate and key are given, as PEM. Its issuer is the
/// authority's subject byte for byte: chains are compared so.
pub(super) fn leaf(
    request: &Request,
    key: &PrivateKey,
    authority: &Certificate,
    authority_key: &PrivateKey,
) -> Result<String, IssueError> {
    let mut params = params(request)?;
    // basicConstraints CA:FALSE without a subject key identifier, as kubeadm writes it; ExplicitNoCa would add one.
    let mut no_authority = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0]);
    no_authority.set_criticality(true);
    params.custom_extensions.push(no_authority);
    // Of the authority the library needs no more than this: its name is put in below.
    let mut signer = CertificateParams::default();
    signer.distinguished_name = DistinguishedName::new();
    if let Some(id) = authority.subject_key_id()? {
        params.use_authority_key_identifier_extension = true;
        signer.key_identifier_method = KeyIdMethod::PreSpecified(id);
    }
    let made = params.signed_by(key.pair(), &Issuer::from_params(&signer, authority_key.pair()))?;
    let names = [(subject::ISSUER, authority.subject_der()?), (subject::SUBJECT, subject::name(request))];
    let made = Certificate::parse(&subject::replace(made.der(), &names, authority_key)?)?;
    if !made.is_signed_by(authority) {
        return Err(IssueError::Unfit);
    }
    Ok(made.pem())
}

/// Makes a request for a certificate on `key`, as PEM, for the holder of the authority's key. Which validity it gets is not
/// for a request to say.
pub(super) fn signing_request(request: &Request, key: &PrivateKey) -> Result<String, IssueError> {
    let mut params = params(request)?;
    params.serial_number = None;
    let made = params.serialize_request(key.pair())?;
    let der = subject::replace(made.der(), &[(subject::REQUESTED, subject::name(request))], key)?;
    Ok(inspect::pem("CERTIFICATE REQUEST", &der))
}

/// The certificate in a text that was just made.
pub(super) fn read_back(pem: &str) -> Result<Certificate, IssueError> {
    inspect::read(pem.as_bytes())?.into_iter().next().ok_or(IssueError::Form)
}

/// What authorities and leaves have in common. Everything that has a surprising default in the library is set here.
fn params(request: &Request) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Organizations come with `subject::name`.
    params.distinguished_name.push(DnType::CommonName, request.common_name.as_str());
    params.not_before = time(request.window.not_before)?;
    params.not_after = time(request.window.not_after)?;
    params.serial_number = Some(serial()?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = request.usages.iter().map(purpose).collect();
    params.subject_alt_names = request.sans.iter().map(san).collect::<Result<_, _>>()?;
    Ok(params)
}

fn purpose(usage: &Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }
}

fn san(san: &San) -> Result<SanType, IssueError> {
    Ok(match san {
        San::Ip(address) => SanType::IpAddress(*address),
        San::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(|_| IssueError::Name(name.to_owned()))?),
    })
}

fn time(at: Timestamp) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| IssueError::Time)
}

/// Random, positive, up to 63 bits, as kubeadm's.
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssueError::Random)?;
    // Zero is no serial number; there is one chance in 2^63.
    Ok(SerialNumber::from((u64::from_be_bytes(bytes) >> 1).max(1)))
}
