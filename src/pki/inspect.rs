//! Reading certificates.

use std::net::IpAddr;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::key::PrivateKey;
use super::table::{San, Usage};
use crate::host::digest::sha256;

/// A text that is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// No block `CERTIFICATE`.
    #[error("no PEM block CERTIFICATE")]
    Empty,
    /// A block that is not PEM.
    #[error("not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// Not a certificate inside.
    #[error("not an X.509 certificate")]
    X509(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A time before or after what can be reckoned with.
    #[error("a validity that is out of range")]
    Time,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of the subject.
    pub common_name: Option<String>,
    /// The organizations of the subject.
    pub organizations: Vec<String>,
    /// The common name of the issuer.
    pub issuer: Option<String>,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Whether it may sign certificates.
    pub is_authority: bool,
    /// Extended key usages, as far as this program knows them; None where any use is allowed.
    pub usages: Option<Vec<Usage>>,
    /// Subject alternative names, in the certificate's order; other kinds than DNS and IP are left out.
    pub sans: Vec<San>,
    der: Vec<u8>,
}

/// The certificates of a PEM file, in its order; at least one. Blocks of other kinds are passed over.
pub fn read(pem: &[u8]) -> Result<Vec<Certificate>, InspectError> {
    let all = CertificateDer::pem_slice_iter(pem)
        .map(|der| Certificate::parse(&der.map_err(InspectError::Pem)?))
        .collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() { Err(InspectError::Empty) } else { Ok(all) }
}

/// The public key of a certificate, in DER: its SubjectPublicKeyInfo, and the key alone. None where it is no certificate.
pub fn public_key(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let x509 = open(der).ok()?;
    let info = x509.public_key();
    Some((info.raw.to_vec(), info.subject_public_key.data.to_vec()))
}

impl Certificate {
    /// Reads one from DER.
    pub fn parse(der: &[u8]) -> Result<Self, InspectError> {
        let x509 = open(der)?;
        let at = |seconds| Timestamp::from_second(seconds).map_err(|_| InspectError::Time);
        let extensions = |error: X509Error| InspectError::X509(error.into());
        let usages = x509.extended_key_usage().map_err(extensions)?.filter(|usages| !usages.value.any).map(|usages| {
            let known = [(usages.value.server_auth, Usage::Server), (usages.value.client_auth, Usage::Client)];
            known.into_iter().filter_map(|(has, usage)| has.then_some(usage)).collect()
        });
        let names = x509.subject_alternative_name().map_err(extensions)?.map(|names| &names.value.general_names);
        // Without a keyUsage extension every use is allowed.
        let may_sign = x509.key_usage().map_err(extensions)?.is_none_or(|usage| usage.value.key_cert_sign());
        Ok(Self {
            common_name: common_name(x509.subject()),
            organizations: x509.subject().iter_organization().filter_map(text).collect(),
            issuer: common_name(x509.issuer()),
            not_before: at(x509.validity().not_before.timestamp())?,
            not_after: at(x509.validity().not_after.timestamp())?,
            is_authority: x509.is_ca() && may_sign,
            usages,
            sans: names.into_iter().flatten().filter_map(san).collect(),
            der: der.to_vec(),
        })
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The DER of its SubjectPublicKeyInfo.
    pub fn public_key_der(&self) -> Vec<u8> {
        open(&self.der).map(|own| own.public_key().raw.to_vec()).unwrap_or_default()
    }

    /// Its PEM text.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// SHA-256 over its DER, in hex.
    pub fn fingerprint(&self) -> String {
        sha256(&self.der)
    }

    /// Whether `authority` has signed it: names, and then the signature itself. Says nothing of times and uses.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok(own), Ok(issuer)) = (open(&self.der), open(&authority.der)) else { return false };
        own.issuer().as_raw() == issuer.subject().as_raw() && signature_fits(&own, &issuer)
    }

    /// Whether its public key is that of `key`.
    pub fn is_for(&self, key: &PrivateKey) -> bool {
        open(&self.der).is_ok_and(|own| own.public_key().raw == key.public_der())
    }

    /// Whether it says to be a CA's, whether or not it may sign.
    pub(super) fn is_ca(&self) -> bool {
        open(&self.der).is_ok_and(|own| own.is_ca())
    }

    /// Whether what it signs may have certain names alone.
    pub(super) fn constrains_names(&self) -> bool {
        open(&self.der).map_or(true, |own| !matches!(own.name_constraints(), Ok(None)))
    }

    /// Whether it has an extension that has to be understood, and that this program does not know.
    pub(super) fn demands_the_unknown(&self) -> bool {
        let is_known = |extension: &X509Extension<'_>| {
            use ParsedExtension::{ParseError, Unparsed, UnsupportedExtension};
            !matches!(extension.parsed_extension(), UnsupportedExtension { .. } | ParseError { .. } | Unparsed)
        };
        open(&self.der).map_or(true, |own| own.extensions().iter().any(|one| one.critical && !is_known(one)))
    }

    /// The DER of its subject, as it stands in it.
    pub(super) fn subject_der(&self) -> Result<Vec<u8>, InspectError> {
        open(&self.der).map(|own| own.subject().as_raw().to_vec())
    }

    /// Its subject key identifier, by which what it signs names it.
    pub(super) fn subject_key_id(&self) -> Result<Option<Vec<u8>>, InspectError> {
        let own = open(&self.der)?;
        let id = own.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(id)
    }
}

/// The PEM text of a block.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem + &format!("-----END {label}-----\n")
}

fn open(der: &[u8]) -> Result<X509Certificate<'_>, InspectError> {
    X509Certificate::from_der(der).map(|(_, x509)| x509).map_err(|error| InspectError::X509(error.into()))
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().next().and_then(text)
}

/// The text of an attribute in whichever of X.509's kinds of text it is.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    if let Ok(text) = attribute.as_str() {
        return Some(text.to_owned());
    }
    let value = attribute.attr_value();
    match value.tag() {
        Tag::BmpString => {
            let units = value.data.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
        }
        // As Go reads it: ISO 8859-1.
        Tag::TeletexString => Some(value.data.iter().copied().map(char::from).collect()),
        Tag::UniversalString => {
            let point = |bytes: &[u8]| char::from_u32(u32::from_be_bytes(bytes.try_into().ok()?));
            value.data.chunks(4).map(point).collect()
        }
        _ => None,
    }
}

fn san(name: &GeneralName<'_>) -> Option<San> {
    match name {
        GeneralName::DNSName(name) => Some(San::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            // An IPv4 address may be written in 16 bytes, as Go's own type has it.
            Some(San::Ip(address.to_canonical()))
        }
        _ => None,
    }
}

/// The parser verifies RSA, P-256 and P-384; P-521 is done here, for CAs that others have made.
fn signature_fits(own: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    match own.verify_signature(Some(issuer.public_key())) {
        Ok(()) => true,
        Err(X509Error::SignatureUnsupportedAlgorithm)
            if own.signature_algorithm.algorithm.to_id_string() == "1.2.840.10045.4.3.4" =>
        {
            UnparsedPublicKey::new(&ECDSA_P521_SHA512_ASN1, &issuer.public_key().subject_public_key.data)
                .verify(own.tbs_certificate.as_ref(), &own.signature_value.data)
                .is_ok()
        }
        Err(_) => false,
    }
}
