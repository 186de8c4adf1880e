//! Command lines: kubeadm's policy for a component's own flags and the user's.

use crate::config::spec::{Arg, last_arg};

/// A component's own flags, one value a name.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<(String, String)>);

impl Flags {
    /// Adds or replaces a flag.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.into()));
    }

    /// Adds or replaces flags from a table.
    pub fn set_all(&mut self, table: &[(&str, &str)]) {
        for (name, value) in table {
            self.set(name, *value);
        }
    }

    /// The command line: own flags sorted by name, those left out that `extra` names, then `extra` as the user ordered
    /// it, duplicates kept.
    pub fn into_args(self, extra: &[Arg]) -> Vec<String> {
        let mut own: Vec<_> = self.0.into_iter().filter(|(name, _)| last_arg(extra, name).is_none()).collect();
        own.sort();
        let own = own.into_iter().map(|(name, value)| format!("--{name}={value}"));
        own.chain(extra.iter().map(|arg| format!("--{}={}", arg.name, arg.value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(name: &str, value: &str) -> Arg {
        Arg { name: name.into(), value: value.into() }
    }

    #[test]
    fn own_flags_are_sorted_and_the_users_follow_in_their_order() {
        let mut flags = Flags::default();
        flags.set_all(&[("v", "1"), ("bind-address", "127.0.0.1"), ("authorization-mode", "RBAC")]);
        let extra = [arg("z", "1"), arg("a", ""), arg("bind-address", "::"), arg("z", "0")];
        assert_eq!(
            flags.into_args(&extra),
            ["--authorization-mode=RBAC", "--v=1", "--z=1", "--a=", "--bind-address=::", "--z=0"]
        );
    }
}
