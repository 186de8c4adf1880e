//! SPDY/3.1, as far as Kubernetes' streams use it: frames in and out of bytes, nothing else. No I/O, no tasks.
//!
//! The protocol is that of "SPDY Protocol - Draft 3.1". Its users here are clients of the kubelet's `exec`, `attach` and
//! `portForward` (`X-Stream-Protocol-Version`).

mod dictionary;
mod frame;
mod headers;

pub use frame::{Decoder, Encoder, Frame, FrameError, status};
pub use headers::Headers;

#[cfg(test)]
mod tests;
