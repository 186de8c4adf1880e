//! The environment of this process. It is read here alone, so that what a command depends on besides flags and files is one
//! list.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Every variable.
pub fn variables() -> Vec<(String, String)> {
    env::vars().collect()
}

/// The proxy variables, which the Kubernetes components get too.
pub fn proxies() -> Vec<(String, String)> {
    proxies_among(variables())
}

/// Those of `variables` whose name ends in `_proxy`, in any case, and that are not empty.
pub fn proxies_among(variables: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    let is_proxy = |(name, value): &(String, String)| name.to_lowercase().ends_with("_proxy") && !value.is_empty();
    variables.into_iter().filter(is_proxy).collect()
}

/// `DOCKER_HOST`: where Docker listens.
pub fn docker_host() -> Option<String> {
    env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty())
}

/// `HOME`.
pub fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

/// `KUBECONFIG`: kubeconfigs, with colons between.
pub fn kubeconfigs() -> Option<OsString> {
    env::var_os("KUBECONFIG")
}

/// `PATH`: where programs are.
pub fn path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// `TERM`: the kind of the terminal.
pub fn terminal() -> Option<OsString> {
    env::var_os("TERM").filter(|kind| !kind.is_empty())
}

/// `NO_COLOR`: whether colours are not wanted.
pub fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether a service manager waits to be notified (`NOTIFY_SOCKET`).
pub fn has_notify_socket() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The files below `dir` that read the environment.
    fn readers(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(readers(&path));
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("env::var")) {
                found.push(path);
            }
        }
        found
    }

    #[test]
    fn the_environment_is_read_here_alone() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let is_product = |path: &PathBuf| !path.starts_with(src.join("testing"));
        let readers: Vec<PathBuf> = readers(&src).into_iter().filter(is_product).collect();
        assert_eq!(readers, [src.join("host/environment.rs")]);
    }

    #[test]
    fn proxies_are_the_variables_that_end_so_in_any_case_and_are_not_empty() {
        let given = [("HTTPS_PROXY", "p:1"), ("no_proxy", "a,b"), ("ftp_proxy", ""), ("PROXY", "x"), ("HOME", "/")];
        let found = proxies_among(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["HTTPS_PROXY", "no_proxy"]);
    }
}
