//! Credentials of registries, and which of them an image is pulled with: the kubelet's rules (`pkg/credentialprovider`).
//! Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::runtime::Credential;

/// Padded or not, as Docker and the kubelet take it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Where images without a registry in their names come from.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The same by the name that `docker login` writes.
const DEFAULT_INDEX: &str = "index.docker.io";
/// The longest host, with its port, that is compared. No name of a host has more than 253 letters; a pod's author may
/// write a megabyte of them, of which every entry would be compared with every image.
const HOST_LIMIT: usize = 260;

/// What is wrong with a document of credentials. Of its content only names of registries are reported.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyringError {
    /// No JSON, or not of this form.
    #[error("no credentials of registries, at line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An `auth` that is not `USER:PASSWORD` in base64. The others are used.
    #[error("auth of {registry:?} is no base64 of USER:PASSWORD")]
    Auth {
        /// As the document has it.
        registry: String,
    },
}

/// Credentials by registry, with a path where they are for a part of it. Has no Debug: they are secrets.
#[derive(Default)]
pub struct Keyring(BTreeMap<String, Vec<Credential>>);

type Entries = BTreeMap<String, Option<Entry>>;

/// `config.json`, and the secrets that hold one.
#[derive(Deserialize)]
struct ConfigJson {
    auths: Option<Entries>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

impl Keyring {
    /// Adds what a `config.json` holds, or a secret of type kubernetes.io/dockerconfigjson.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn add_config_json(&mut self, text: &[u8]) -> Result<(), KeyringError> {
        let config: ConfigJson = parse(text)?;
        self.add(config.auths.unwrap_or_default())
    }

    /// Adds what a `.dockercfg` holds, or a secret of type kubernetes.io/dockercfg.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn add_dockercfg(&mut self, text: &[u8]) -> Result<(), KeyringError> {
        let entries: Entries = parse(text)?;
        self.add(entries)
    }

    fn add(&mut self, entries: Entries) -> Result<(), KeyringError> {
        let mut wrong = None;
        for (location, entry) in entries {
            match entry.map_or(Some(None), Entry::credential) {
                Some(Some(credential)) => self.0.entry(key(&location)).or_default().push(credential),
                // A credential helper of Docker's has the password.
                Some(None) => {}
                None => wrong = wrong.or(Some(KeyringError::Auth { registry: location })),
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The credentials for an image, those for the longest path first.
    pub fn matching(&self, image: &str) -> Vec<&Credential> {
        let name = repository(image);
        let found: Vec<&Credential> =
            self.0.iter().rev().filter(|(key, _)| fits(key, &name)).flat_map(|(_, of)| of).collect();
        let is_default = name.split_once('/').is_some_and(|(host, _)| host == DEFAULT_REGISTRY);
        if found.is_empty() && is_default {
            return self.0.get(DEFAULT_INDEX).into_iter().flatten().collect();
        }
        found
    }
}

impl Entry {
    /// None where `auth` is not what it is to be, Some(None) where nothing is said.
    fn credential(self) -> Option<Option<Credential>> {
        let (username, password) = match self.auth.filter(|auth| !auth.trim().is_empty()) {
            Some(auth) => decoded(&auth)?,
            None => (self.username.unwrap_or_default(), self.password.unwrap_or_default()),
        };
        let is_empty = username.is_empty() && password.is_empty();
        Some((!is_empty).then_some(Credential { username, password }))
    }
}

fn decoded(auth: &str) -> Option<(String, String)> {
    let text = auth.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
    let both = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let (username, password) = both.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, KeyringError> {
    // serde_json's words show what was found.
    serde_json::from_slice(text).map_err(|error| KeyringError::Syntax { line: error.line(), column: error.column() })
}

/// Host and path of an entry: without a scheme, and without the `/v1/` or `/v2/` that `docker login` used to write.
fn key(location: &str) -> String {
    let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://")).unwrap_or(location);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = split(rest);
    let in_api = ["/v1", "/v2"].iter().find_map(|api| path.strip_prefix(api)).filter(|path| path.starts_with('/'));
    match in_api.unwrap_or(path) {
        "/" => host.to_owned(),
        path => format!("{host}{path}"),
    }
}

/// Host, and path with its slash.
fn split(location: &str) -> (&str, &str) {
    location.split_at(location.find('/').unwrap_or(location.len()))
}

/// Host and port, which is empty where there is none.
fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

/// Whether an image of this full name is pulled with the credentials of this key: the same port, as many words in the
/// host's name, each of which its pattern fits, and a path that begins with the key's.
fn fits(key: &str, image: &str) -> bool {
    let ((key_host, key_path), (host, path)) = (split(key), split(image));
    if key_host.len().max(host.len()) > HOST_LIMIT {
        return false;
    }
    let ((pattern, key_port), (name, port)) = (split_port(key_host), split_port(host));
    let (patterns, words): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), name.split('.').collect());
    key_port == port
        && path.starts_with(key_path)
        && patterns.len() == words.len()
        && patterns.iter().zip(words).all(|(pattern, word)| is_like(pattern, word))
}

/// `*` stands for any letters. In time that grows with the word alone, whatever the pattern is: what is between two stars
/// is looked for once, and its first place is as good as any later one.
fn is_like(pattern: &str, word: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = word.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    let Some(middle) = rest.strip_suffix(end) else { return false };
    rest = middle;
    parts.all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

/// The full name of an image, without tag and digest: `nginx:1` is `docker.io/library/nginx`.
fn repository(image: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    };
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost" || part.to_lowercase() != part;
    let path = match name.split_once('/') {
        Some((DEFAULT_REGISTRY | DEFAULT_INDEX, path)) => path,
        Some((host, _)) if is_host(host) => return name.to_owned(),
        _ => name,
    };
    let library = if path.contains('/') { "" } else { "library/" };
    format!("{DEFAULT_REGISTRY}/{library}{path}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A keyring that has one credential for each of these, named like it.
    fn keyring(locations: &[&str]) -> Keyring {
        let auths: serde_json::Map<_, _> = { locations.iter() }
            .map(|location| ((*location).to_owned(), json!({"username": location, "password": "p"})))
            .collect();
        let mut keyring = Keyring::default();
        keyring.add_config_json(json!({"auths": auths}).to_string().as_bytes()).unwrap();
        keyring
    }

    fn names(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring.matching(image).iter().map(|one| one.username.clone()).collect()
    }

    #[test]
    fn a_registry_is_found_by_host_port_and_path_whatever_else_its_entry_says() {
        let fits = |location: &str, image: &str| !names(&keyring(&[location]), image).is_empty();
        for (location, image) in [
            ("r.io", "r.io/a/b:1"),
            ("https://r.io", "r.io/a"),
            ("http://r.io/", "r.io/a"),
            ("https://r.io/v1/", "r.io/a"),
            ("https://r.io/v2/team", "r.io/team/a"),
            ("r.io/team", "r.io/team/a@sha256:00"),
            ("r.io/te", "r.io/team/a"),
            ("r.io:5000", "r.io:5000/a"),
            ("localhost", "localhost/a"),
            ("[::1]:5000", "[::1]:5000/a:1"),
            ("https://[fd00:5::10]:5000/v2/k8s", "[fd00:5::10]:5000/k8s/pause@sha256:00"),
            ("[fd00:5::10]", "[fd00:5::10]/a"),
            ("*.io", "r.io/a"),
            ("*.r.io", "eu.r.io/a"),
            ("eu*.r.io", "eu-west.r.io/a"),
            ("*-docker.pkg.dev", "europe-docker.pkg.dev/a"),
            ("docker.io", "nginx"),
            ("docker.io/library", "nginx:1"),
            ("docker.io/me", "me/x"),
            ("https://index.docker.io/v1/", "nginx"),
            ("https://index.docker.io/v1/", "me/x:1"),
            ("https://index.docker.io/v1/", "docker.io/library/nginx"),
            ("index.docker.io", "index.docker.io/me/x"),
        ] {
            assert!(fits(location, image), "{location} {image}");
        }
        for (location, image) in [
            ("r.io", "x.r.io/a"),
            ("*.io", "x.r.io/a"),
            ("*.r.io", "r.io/a"),
            ("r.io", "r.io:5000/a"),
            ("r.io:5000", "r.io/a"),
            ("r.io:*", "r.io:5000/a"),
            ("r.io/team", "r.io/other/a"),
            ("r.io", "evil-r.io/a"),
            ("r.io", "r.io.evil.com/a"),
            ("r.io", "evil.com/r.io/a"),
            ("https://index.docker.io/v1/", "r.io/library/nginx"),
            ("docker.io", "nginx.docker.io/x"),
            ("docker.io/library", "me/x"),
            ("", "nginx"),
        ] {
            assert!(!fits(location, image), "{location} {image}");
        }
    }

    #[test]
    fn stars_that_could_stand_for_much_are_compared_at_once() {
        let (sender, compared) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let stars = "*a".repeat(40);
            let images = [format!("{}b.io/x", "a".repeat(120)), format!("{}.io/x", "a".repeat(120))];
            let keyring = keyring(&[&format!("{stars}.io")]);
            let _ = sender.send(images.map(|image| names(&keyring, &image).len()));
        });
        // The comparison that tries every place of every star would take longer than the machine lives.
        let found = compared.recv_timeout(std::time::Duration::from_secs(20)).expect("compared in time");
        assert_eq!(found, [0, 1]);
    }

    #[test]
    fn what_stars_leave_open_is_found_wherever_it_is() {
        for (pattern, word, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("ab*bc", "abc", false),
            ("*b*", "abc", true),
            ("*b*b*", "abc", false),
            ("a*b*c", "aXbXbXc", true),
            ("*ab", "aab", true),
            ("*é*", "café1", true),
        ] {
            assert_eq!(is_like(pattern, word), fits, "{pattern} {word}");
        }
    }

    #[test]
    fn a_host_longer_than_any_name_fits_nothing() {
        let long = "a".repeat(HOST_LIMIT + 1);
        assert_eq!(names(&keyring(&["*.io", &format!("{long}.io"), "*"]), &format!("{long}.io/x")), [""; 0]);
    }

    #[test]
    fn the_longest_path_comes_first_and_all_that_fit_are_tried() {
        let keyring = keyring(&["r.io", "r.io/a/b", "r.io/a", "*.io", "r.io/c"]);
        assert_eq!(names(&keyring, "r.io/a/b/x:1"), ["r.io/a/b", "r.io/a", "r.io", "*.io"]);
        assert_eq!(names(&keyring, "x.com/r.io"), [""; 0]);
    }

    #[test]
    fn both_forms_are_read_with_the_password_in_either_place() {
        let mut keyring = Keyring::default();
        let padded = json!({"auths": {"a.io": {"auth": "dTpwOnE=", "username": "no"}, "h.io": {}, "n.io": null}});
        keyring.add_config_json(padded.to_string().as_bytes()).unwrap();
        keyring
            .add_dockercfg(br#"{"b.io": {"auth": " dTpwOnE\n"}, "a.io": {"username": "v", "password": "w"}}"#)
            .unwrap();
        keyring.add_config_json(br#"{"credsStore": "x"}"#).unwrap();
        let both = |image: &str| -> Vec<(String, String)> {
            keyring.matching(image).iter().map(|one| (one.username.clone(), one.password.clone())).collect()
        };
        let (first, second) = (("u".to_owned(), "p:q".to_owned()), ("v".to_owned(), "w".to_owned()));
        assert_eq!((both("a.io/x"), both("b.io/x")), (vec![first.clone(), second], vec![first]));
        assert!(both("h.io/x").is_empty() && both("n.io/x").is_empty(), "nothing is known of these");
    }

    #[test]
    fn what_cannot_be_read_is_told_without_what_is_in_it_and_the_rest_is_used() {
        let mut keyring = Keyring::default();
        let bad = json!({"auths": {"a.io": {"auth": "%%secret"}, "b.io": {"username": "u"}, "c.io": {"auth": "dQ=="}}});
        let error = keyring.add_config_json(bad.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "auth of \"a.io\" is no base64 of USER:PASSWORD");
        assert_eq!((names(&keyring, "b.io/x"), names(&keyring, "c.io/x")), (vec!["u".to_owned()], vec![]));
        for text in [r#"{"auths": "secret"}"#, "secret", r#"{"auths": {"a.io": {"password": 1}}}"#] {
            let error = keyring.add_config_json(text.as_bytes()).unwrap_err();
            assert!(matches!(error, KeyringError::Syntax { line: 1, .. }) && !error.to_string().contains("secret"));
        }
    }
}
