//! The forms of names.

/// A lower-case DNS label (RFC 1123).
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// A lower-case DNS name as Kubernetes has it (`IsDNS1123Subdomain`): a part of it may be longer than a label of DNS.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

/// What stands between the dots of a name.
pub fn is_dns_part(text: &str) -> bool {
    let inner = text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    !text.is_empty() && inner && !text.starts_with('-') && !text.ends_with('-')
}

/// The part of a label's key after its prefix, and every value but the empty one.
fn is_word(text: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A label's value.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

/// A key with or without a domain before it.
pub fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_word(name),
        None => is_word(text),
    }
}

/// A port's name (IANA's service names): 15 characters, one of them a letter, no two dashes in a row.
pub fn is_port_name(text: &str) -> bool {
    text.len() <= 15 && is_dns_label(text) && text.bytes().any(|c| c.is_ascii_lowercase()) && !text.contains("--")
}

/// A header's name.
pub fn is_header_name(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    !text.is_empty() && text.bytes().all(word)
}

/// What an environment variable may be called: printable ASCII without `=`.
pub fn is_env_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=')
}

/// A resource that a container can ask for: one of Kubernetes' own, or another with a domain.
pub fn is_resource(text: &str) -> bool {
    match text.split_once('/') {
        None => matches!(text, "cpu" | "memory" | "ephemeral-storage") || text.starts_with("hugepages-"),
        Some(_) => is_qualified(text),
    }
}

/// A resource that is none of Kubernetes' own (`IsExtendedResourceName`): it has a domain, and fits in a quota's name.
pub fn is_extended_resource(text: &str) -> bool {
    let own = !text.contains('/') || text.contains("kubernetes.io/");
    !own && !text.starts_with("requests.") && is_qualified(&format!("requests.{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_forms_that_kubernetes_gives_them() {
        let (long, longest) = ("a".repeat(64), "a".repeat(254));
        for (check, good, bad) in [
            (is_dns_label as fn(&str) -> bool, vec!["a", "a-1", "1"], vec!["", "A", "-a", "a-", "a.b", &long]),
            (is_dns_subdomain, vec!["a", "a.b-c", &long], vec!["", "a..b", ".a", "A.b", &longest]),
            (is_label_value, vec!["", "a", "A_b.c"], vec!["-a", "a b", "a/b", &long]),
            (is_qualified, vec!["a", "x.y/A_b"], vec!["", "/a", "a/", "X/a", "a/b/c"]),
            (is_port_name, vec!["http", "a-1"], vec!["", "80", "a--b", "HTTP", "sixteen-letters-"]),
            (is_header_name, vec!["X-A_b"], vec!["", "a b", "a:b"]),
            (is_env_name, vec!["A", "a b", "1.x"], vec!["", "A=B", "\u{e4}"]),
            (is_resource, vec!["cpu", "hugepages-2Mi", "x.y/gpu"], vec!["cpus", "", "X/"]),
        ] {
            good.iter().for_each(|name| assert!(check(name), "{name:?}"));
            bad.iter().for_each(|name| assert!(!check(name), "{name:?}"));
        }
    }

    #[test]
    fn an_extended_resource_has_a_domain_that_is_not_kubernetes() {
        for name in ["example.com/gpu", "test.device/device-plugin-failures-1234"] {
            assert!(is_extended_resource(name), "{name}");
        }
        let long = format!("example.com/{}", "x".repeat(64));
        for name in
            ["cpu", "kubernetes.io/batch", "sub.kubernetes.io/x", "requests.example.com/x", "a/b/c", "A/b", &long]
        {
            assert!(!is_extended_resource(name), "{name}");
        }
    }
}
