//! What the cluster hears of the node and asks of it: the Node itself, mirrors of static pods, events, and the pods that are
//! bound to it. Nothing that runs pods knows of it: without an API server everything else goes on.

pub mod bound;
pub mod mirror;
pub mod node;
pub mod pod_status;
pub mod event_sink;
