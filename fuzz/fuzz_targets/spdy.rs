//! Whatever a client says instead of SPDY, reading it ends, the same way in whatever pieces it comes, and what was read
//! can be written and read again.

#![no_main]

use bytes::BytesMut;
use kubeboot::agent::server::stream::spdy::protocol::{Decoder, Encoder, Frame, FrameError};
use libfuzzer_sys::fuzz_target;

fn read<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Without data, which comes in as many frames as there were pieces.
fn control(frames: &[Frame]) -> Vec<&Frame> {
    frames.iter().filter(|frame| !matches!(frame, Frame::Data { .. })).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let (frames, error) = read([bytes].into_iter());
    let (pieces, same) = read(bytes.chunks(7));
    assert_eq!((control(&frames), error), (control(&pieces), same));
    let (mut encoder, mut written) = (Encoder::default(), BytesMut::new());
    for frame in &frames {
        encoder.encode(frame, &mut written);
    }
    let (again, error) = read([written.as_ref()].into_iter());
    assert_eq!((again.len(), error), (frames.len(), None));
});
