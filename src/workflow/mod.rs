//! The commands that change a machine, one room each: an ordered table of named phases, run so that a run that was cut off
//! is finished by the next one. Beside them is what they share: phases as data ([`phase`]), a run with its lock, journal
//! and inventory ([`session`], [`state`]), files written as one batch ([`stage`]), the machine and the cluster that they act
//! on ([`machine`]), what they know of a node's files ([`node_files`]), and the checks before ([`preflight`]). One loop runs
//! every table (`runner`).

pub mod adopt;
pub mod dry_run;
mod error;
pub mod etcd;
pub mod init;
pub mod join;
pub mod machine;
pub mod node_files;
pub mod phase;
pub mod preflight;
pub mod renewal;
pub mod reset;
mod runner;
pub mod session;
pub mod stage;
pub mod state;
pub mod upgrade;
