//! What is asked of etcd's members and done with their data by hand: the cluster judged by its quorum ([`overview`]),
//! snapshots ([`save`]), and databases made small again ([`defrag`]).

pub mod cluster;
pub mod defrag;
pub mod overview;
pub mod restore;
pub mod save;
#[cfg(test)]
mod tests;
