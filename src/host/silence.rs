//! Why nothing answers at an address.

use std::error::Error;
use std::{fmt, io};

use serde::Serialize;

/// What a connection failed by, as far as the system says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Silence {
    /// There is no such socket.
    Missing,
    /// Nothing listens there: a closed port, or a socket that its program has left behind.
    Refused,
    /// This process may not use it.
    Denied,
    /// No way leads to that host.
    Unreachable,
    /// Something else.
    #[default]
    Other,
}

impl Silence {
    /// The first cause of `error` that is the system's.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(system) = error.downcast_ref::<io::Error>() {
            let silence = match system.kind() {
                io::ErrorKind::NotFound => Self::Missing,
                io::ErrorKind::ConnectionRefused => Self::Refused,
                io::ErrorKind::PermissionDenied => Self::Denied,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
                _ => Self::Other,
            };
            if silence != Self::Other {
                return silence;
            }
            // An io::Error hands out what it wraps by `get_ref` only; its source is the source of that.
            if let Some(inner) = system.get_ref() {
                return Self::of(inner);
            }
        }
        error.source().map_or(Self::Other, Self::of)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no such socket",
            Self::Refused => "nothing listens there",
            Self::Denied => "this user may not use it",
            Self::Unreachable => "no way leads to that host",
            Self::Other => "it does not answer as it should",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_systems_word_is_found_however_deep_it_is_wrapped() {
        let cases = [
            (io::ErrorKind::NotFound, Silence::Missing),
            (io::ErrorKind::ConnectionRefused, Silence::Refused),
            (io::ErrorKind::PermissionDenied, Silence::Denied),
            (io::ErrorKind::HostUnreachable, Silence::Unreachable),
            (io::ErrorKind::TimedOut, Silence::Other),
        ];
        for (kind, expected) in cases {
            assert_eq!(Silence::of(&io::Error::from(kind)), expected);
            assert_eq!(Silence::of(&Outer(io::Error::other(Outer(kind.into())))), expected);
        }
    }
}
