//! Names that the certificate library cannot write: it keeps one attribute of a kind, and writes them in its own way. What
//! it has made gets the names as they have to be, byte for byte, and is signed again.

use rcgen::SigningKey;

use super::error::IssueError;
use super::issue::Request;
use super::key::PrivateKey;

/// Where the issuer is among the fields of a certificate that are signed.
pub(super) const ISSUER: usize = 3;
/// Where the subject is.
pub(super) const SUBJECT: usize = 5;
/// Where the subject of a signing request is.
pub(super) const REQUESTED: usize = 1;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
const ORGANIZATION: &[u8] = &[0x06, 3, 0x55, 4, 10];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];

/// `der` (a certificate, or a request) with other `names` at their places among the signed fields, signed by `signer`.
pub(super) fn replace(der: &[u8], names: &[(usize, Vec<u8>)], signer: &PrivateKey) -> Result<Vec<u8>, IssueError> {
    let outer = children(content(der)?)?;
    let [signed, algorithm, _] = outer[..] else { return Err(IssueError::Form) };
    let mut fields = children(content(signed)?)?;
    for (place, name) in names {
        *fields.get_mut(*place).ok_or(IssueError::Form)? = name.as_slice();
    }
    let signed = element(SEQUENCE, &fields.concat());
    let signature = signer.pair().sign(&signed)?;
    let signature = element(BIT_STRING, &[&[0], signature.as_slice()].concat());
    Ok(element(SEQUENCE, &[signed.as_slice(), algorithm, &signature].concat()))
}

/// The subject of a request: the organizations in one set, as Go writes them, then the common name.
pub(super) fn name(request: &Request) -> Vec<u8> {
    let attribute =
        |kind: &[u8], text: &str| element(SEQUENCE, &[kind, element(UTF8_STRING, text.as_bytes()).as_slice()].concat());
    let mut organizations: Vec<Vec<u8>> =
        request.organizations.iter().map(|organization| attribute(ORGANIZATION, organization)).collect();
    // DER puts the members of a set in order.
    organizations.sort();
    let organizations = match organizations.is_empty() {
        true => vec![],
        false => element(SET, &organizations.concat()),
    };
    let common_name = attribute(COMMON_NAME, &request.common_name);
    element(SEQUENCE, &[organizations, element(SET, &common_name)].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut der = vec![tag];
    match significant {
        [short] if *short < 0x80 => der.push(*short),
        // At most eight bytes of length.
        long => der.extend(std::iter::once(0x80 | long.len() as u8).chain(long.iter().copied())),
    }
    der.extend(content);
    der
}

/// The content of the first element.
fn content(der: &[u8]) -> Result<&[u8], IssueError> {
    split(der).map(|(_, content, _)| content)
}

/// The elements one after the other, each with its header.
fn children(mut der: &[u8]) -> Result<Vec<&[u8]>, IssueError> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (whole, _, rest) = split(der)?;
        found.push(whole);
        der = rest;
    }
    Ok(found)
}

/// An element whole, its content, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The first element whole, its content, and what follows it.
fn split(der: &[u8]) -> Result<Split<'_>, IssueError> {
    let first = *der.get(1).ok_or(IssueError::Form)?;
    let (header, length) = match first {
        0..0x80 => (2, usize::from(first)),
        _ => {
            let bytes = usize::from(first & 0x7f);
            let long = der.get(2..2 + bytes).filter(|_| bytes <= 4).ok_or(IssueError::Form)?;
            (2 + bytes, long.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
        }
    };
    let whole = der.get(..header + length).ok_or(IssueError::Form)?;
    Ok((whole, &whole[header..], &der[header + length..]))
}
