//! The machine: paths below a root, atomic files, facts for preflight, processes and ports. Nothing here knows
//! Kubernetes' objects; nothing above spells a path of its own.

pub mod beneath;
pub mod clock;
pub mod digest;
pub mod disk;
pub mod environment;
pub mod facts;
pub mod fs;
pub mod kernel;
pub mod lock;
pub mod memory;
pub mod mounts;
pub mod net;
pub mod paths;
pub mod ports;
pub mod process;
pub mod remove;
pub mod reserve;
pub mod silence;
pub mod socket;
pub mod staged;
pub mod steer;
pub mod sync;
pub mod tls;
pub mod tree;
pub mod watched;

pub use paths::Paths;
