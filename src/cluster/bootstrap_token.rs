//! Bootstrap tokens as the Secrets that the API server and the controller manager know them by.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

use crate::config::bootstrap_token::{BootstrapToken, Lifetime, Token};

/// Where these Secrets are.
pub const NAMESPACE: &str = "kube-system";
/// Their type, which the tokencleaner and the authenticator look for.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

const NAME_PREFIX: &str = "bootstrap-token-";
const USAGE_PREFIX: &str = "usage-bootstrap-";
const ID: &str = "token-id";
const SECRET: &str = "token-secret";
const DESCRIPTION: &str = "description";
const EXPIRATION: &str = "expiration";
const GROUPS: &str = "auth-extra-groups";

/// A Secret that is no bootstrap token, though its type says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Secret {name} is no bootstrap token: {problem}")]
pub struct SecretError {
    /// Its name.
    pub name: String,
    /// What is wrong, without the token.
    pub problem: &'static str,
}

/// The name of the Secret of the token with this id.
pub fn secret_name(id: &str) -> String {
    format!("{NAME_PREFIX}{id}")
}

/// The Secret of a token that is made at `now`.
pub fn to_secret(token: &BootstrapToken, now: Timestamp) -> Secret {
    let mut data: BTreeMap<String, String> =
        [(ID.to_owned(), token.token.id().to_owned()), (SECRET.to_owned(), token.token.secret().to_owned())].into();
    if !token.description.is_empty() {
        data.insert(DESCRIPTION.into(), token.description.clone());
    }
    if let Some(end) = token.lifetime.end(now) {
        data.insert(EXPIRATION.into(), rfc3339(end));
    }
    data.extend(token.usages.iter().map(|usage| (format!("{USAGE_PREFIX}{usage}"), "true".to_owned())));
    if !token.groups.is_empty() {
        data.insert(GROUPS.into(), token.groups.join(","));
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(token.token.id())),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.into()),
        data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()),
        ..Secret::default()
    }
}

/// The token in a Secret.
///
/// # Errors
/// A Secret without an id or a secret of the right form, whose name is not that of its id, or whose expiration is no
/// time.
pub fn from_secret(secret: &Secret) -> Result<BootstrapToken, SecretError> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let wrong = |problem| SecretError { name: name.clone(), problem };
    let (id, value) = (text(secret, ID), text(secret, SECRET));
    let token: Token = format!("{id}.{value}")
        .parse()
        .map_err(|_| wrong("token-id and token-secret are not of the form of a token's"))?;
    if name != secret_name(token.id()) {
        return Err(wrong("its name is not that of its token-id"));
    }
    let lifetime = match text(secret, EXPIRATION).as_str() {
        "" => Lifetime::Endless,
        end => Lifetime::Until(end.parse().map_err(|_| wrong("its expiration is no time"))?),
    };
    let usages = secret.data.iter().flatten().filter(|(_, value)| value.0 == b"true");
    let usages = usages.filter_map(|(key, _)| key.strip_prefix(USAGE_PREFIX).map(str::to_owned)).collect();
    let groups = text(secret, GROUPS);
    let groups = groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    Ok(BootstrapToken { token, description: text(secret, DESCRIPTION), lifetime, usages, groups })
}

/// Whole seconds in UTC, as Go's RFC 3339 without a fraction.
pub(super) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token() -> BootstrapToken {
        BootstrapToken::new("abcdef.0123456789abcdef".parse().unwrap())
    }

    fn now() -> Timestamp {
        "2026-01-02T15:04:05.678Z".parse().unwrap()
    }

    fn data(token: &BootstrapToken) -> BTreeMap<String, String> {
        let data = to_secret(token, now()).data.unwrap();
        data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_secret_of_a_token_is_kubeadm_s() {
        let token = BootstrapToken { description: "for \"tea: yes\"".into(), ..token() };
        let secret = to_secret(&token, now());
        assert_eq!(secret.metadata.name.as_deref(), Some("bootstrap-token-abcdef"));
        assert_eq!(secret.metadata.namespace.as_deref(), Some("kube-system"));
        assert_eq!(secret.type_.as_deref(), Some("bootstrap.kubernetes.io/token"));
        let expected = pairs(&[
            ("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token"),
            ("description", "for \"tea: yes\""),
            ("expiration", "2026-01-03T15:04:05Z"),
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("usage-bootstrap-signing", "true"),
        ]);
        assert_eq!(data(&token), expected);
    }

    #[test]
    fn what_a_token_has_not_its_secret_has_not() {
        let bare = BootstrapToken { lifetime: Lifetime::Endless, usages: vec![], groups: vec![], ..token() };
        assert_eq!(data(&bare), pairs(&[("token-id", "abcdef"), ("token-secret", "0123456789abcdef")]));
    }

    #[test]
    fn a_secret_reads_back_as_the_token_it_was_made_of() {
        let until = Lifetime::Until("2030-01-01T00:00:00Z".parse().unwrap());
        for lifetime in [Lifetime::Endless, until] {
            let mut token = BootstrapToken { lifetime, description: "ünï\ncode".into(), ..token() };
            token.groups.push("system:bootstrappers:b".into());
            token.usages.sort();
            assert_eq!(from_secret(&to_secret(&token, now())).unwrap(), token);
        }
        let token = BootstrapToken { lifetime: Lifetime::For(Duration::from_secs(60)), ..token() };
        let read = from_secret(&to_secret(&token, now())).unwrap();
        assert_eq!(read.lifetime, Lifetime::Until("2026-01-02T15:05:05Z".parse().unwrap()));
    }

    #[test]
    fn a_secret_that_is_no_token_is_refused_by_name_without_its_content() {
        let broken = |change: &dyn Fn(&mut Secret)| {
            let mut secret = to_secret(&token(), now());
            change(&mut secret);
            from_secret(&secret).unwrap_err().to_string()
        };
        let put = |secret: &mut Secret, key: &str, value: &str| {
            secret.data.as_mut().unwrap().insert(key.into(), ByteString(value.into()));
        };
        for (error, part) in [
            (broken(&|secret| put(secret, "token-secret", "0123456789ABCDEF")), "token-secret"),
            (broken(&|secret| put(secret, "token-id", "fedcba")), "its name"),
            (broken(&|secret| put(secret, "expiration", "tomorrow")), "no time"),
            (broken(&|secret| secret.data = None), "token-id"),
        ] {
            let names_it = error.starts_with("the Secret bootstrap-token-abcdef is no bootstrap token:");
            assert!(names_it && error.contains(part) && !error.contains("0123456789"), "{error}");
        }
    }

    #[test]
    fn only_usages_that_are_true_count() {
        let mut secret = to_secret(&token(), now());
        secret.data.as_mut().unwrap().insert("usage-bootstrap-signing".into(), ByteString(b"false".to_vec()));
        assert_eq!(from_secret(&secret).unwrap().usages, ["authentication"]);
    }
}
