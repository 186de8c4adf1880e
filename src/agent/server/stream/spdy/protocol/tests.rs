use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::dictionary::dictionary;
use super::*;

/// Adler-32, with which both sides name the dictionary.
fn adler(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

fn headers() -> impl Strategy<Value = Headers> {
    vec(("[a-z][a-z0-9-]{0,20}", "[ -~é]{0,40}"), 0..6)
}

/// Several values of a name come out in one text, where the first of them was.
fn grouped(headers: &Headers) -> Headers {
    let mut grouped = Headers::new();
    for (name, value) in headers {
        match grouped.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => *values = format!("{values}\0{value}"),
            None => grouped.push((name.clone(), value.clone())),
        }
    }
    grouped
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = || 1..0x7fff_ffffu32;
    prop_oneof![
        (id(), any::<bool>(), any::<bool>(), headers()).prop_map(|(id, fin, unidirectional, headers)| {
            Frame::SynStream { id, fin, unidirectional, headers: grouped(&headers) }
        }),
        (id(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply {
            id,
            fin,
            headers: grouped(&headers)
        }),
        (id(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers {
            id,
            fin,
            headers: grouped(&headers)
        }),
        (id(), 0..12u32).prop_map(|(id, status)| Frame::RstStream { id, status }),
        any::<Option<u32>>().prop_map(|initial_window| Frame::Settings { initial_window }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (0..0x7fff_ffffu32, 0..3u32).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (0..0x7fff_ffffu32, 0..0x7fff_ffffu32).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        (id(), any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(|(id, fin, bytes)| Frame::Data {
            id,
            fin,
            bytes: Bytes::from(bytes)
        }),
    ]
}

/// Data that came in pieces, put together again.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    let mut open = false;
    for frame in frames {
        match (all.last_mut(), frame) {
            (Some(Frame::Data { id, fin, bytes }), Frame::Data { id: next, fin: last, bytes: more })
                if open && *id == next =>
            {
                *bytes = Bytes::from([bytes.as_ref(), more.as_ref()].concat());
                *fin = last;
                open = false;
            }
            (_, frame) => all.push(frame),
        }
        open = open || matches!(all.last(), Some(Frame::Data { .. }));
    }
    all
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    decoder.buffer().extend_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(frames in vec(frame(), 0..12)) {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut bytes);
        }
        prop_assert_eq!(decode(&mut Decoder::default(), &bytes).unwrap(), frames);
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_bytes_come(frame in frame(), at in any::<prop::sample::Index>()) {
        let mut bytes = BytesMut::new();
        Encoder::default().encode(&frame, &mut bytes);
        let at = at.index(bytes.len());
        let mut decoder = Decoder::default();
        let mut frames = decode(&mut decoder, &bytes[..at]).unwrap();
        frames.extend(decode(&mut decoder, &bytes[at..]).unwrap());
        prop_assert_eq!(joined(frames), vec![frame]);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&mut Decoder::default(), &bytes);
    }

    #[test]
    fn headers_that_are_damaged_are_read_or_refused(headers in headers(), at in any::<prop::sample::Index>(), to: u8) {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        encoder.encode(&Frame::SynReply { id: 1, fin: false, headers }, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode(&mut Decoder::default(), &bytes);
    }
}

/// Frames and the error they end with, of bytes that come in pieces.
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

proptest! {
    /// The property of the fuzz target, on frames of which some bytes are others.
    #[test]
    fn damaged_frames_are_read_the_same_in_pieces_and_what_was_read_can_be_written(
        frames in vec(frame(), 0..6),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        piece in 1..40usize,
    ) {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        frames.iter().for_each(|frame| encoder.encode(frame, &mut bytes));
        for (at, to) in damage.iter().filter(|_| !frames.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = *to;
        }
        let (whole, error) = read([bytes.as_ref()].into_iter());
        let (pieces, same) = read(bytes.chunks(piece));
        prop_assert_eq!((control(&whole), error), (control(&pieces), same));
        let (mut encoder, mut written) = (Encoder::default(), BytesMut::new());
        whole.iter().for_each(|frame| encoder.encode(frame, &mut written));
        let (again, error) = read([written.as_ref()].into_iter());
        prop_assert_eq!((again.len(), error), (whole.len(), None));
    }
}

#[test]
fn the_dictionary_is_the_one_of_the_draft() {
    assert_eq!((dictionary().len(), adler(&dictionary())), (1423, 0xe3c6_a7c2));
}

#[test]
fn a_stream_of_kubectl_is_read() {
    // SYN_STREAM of stream 1 with `streamtype: error`, as Go's zlib compresses it: its head, the dictionary's name, and a
    // block that is stored.
    let plain = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error";
    let length = u16::try_from(plain.len()).unwrap();
    let mut block = vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2, 0];
    block.extend(length.to_le_bytes());
    block.extend((!length).to_le_bytes());
    block.extend(plain);
    let mut bytes = vec![0x80, 3, 0, 1, 0, 0, 0, u8::try_from(10 + block.len()).unwrap(), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(block);
    let headers = vec![("streamtype".to_owned(), "error".to_owned())];
    let expected = Frame::SynStream { id: 1, fin: false, unidirectional: false, headers };
    assert_eq!(decode(&mut Decoder::default(), &bytes).unwrap(), [expected]);
}

#[test]
fn several_values_of_a_name_are_kept() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let given = vec![pair("A", "1"), pair("b", ""), pair("a", "2")];
    let mut bytes = BytesMut::new();
    Encoder::default().encode(&Frame::Headers { id: 3, fin: true, headers: given }, &mut bytes);
    let expected = Frame::Headers { id: 3, fin: true, headers: vec![pair("a", &["1", "2"].join("\0")), pair("b", "")] };
    assert_eq!(decode(&mut Decoder::default(), &bytes).unwrap(), [expected]);
}

/// A frame of stream 1 with this block of headers, compressed.
fn with_block(plain: &[u8]) -> Vec<u8> {
    let mut state = flate2::Compress::new(flate2::Compression::best(), true);
    state.set_dictionary(&dictionary()).unwrap();
    let mut block = Vec::with_capacity(plain.len() + 4096);
    state.compress_vec(plain, &mut block, flate2::FlushCompress::Sync).unwrap();
    assert_eq!(state.total_in(), plain.len() as u64);
    let length = u32::try_from(block.len() + 4).unwrap().to_be_bytes();
    [&[0x80, 3, 0, 8, 0][..], &length[1..], &[0, 0, 0, 1], &block].concat()
}

/// A block of names and values as they stand in it.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap().to_be_bytes().to_vec();
    let texts = headers.iter().flat_map(|(name, values)| [name, values]);
    number(headers.len())
        .into_iter()
        .chain(texts.flat_map(|text| [number(text.len()), text.as_bytes().to_vec()].concat()))
        .collect()
}

#[test]
fn a_small_block_does_not_become_much() {
    // Half of the block a name, half of it values of nothing: a text for each would be 64 MiB.
    let bomb = with_block(&block(&[(&"n".repeat(8 << 10), &"\0".repeat((8 << 10) - 64))]));
    assert!(bomb.len() < 512, "{}", bomb.len());
    assert_eq!(decode(&mut Decoder::default(), &bomb), Err(FrameError::Headers));
    // The values of a name of a sensible length stay the bytes that they were.
    let values = "\0".repeat(12 << 10);
    let frames = decode(&mut Decoder::default(), &with_block(&block(&[("name", &values)]))).unwrap();
    let [Frame::Headers { headers, .. }] = &frames[..] else { panic!("{frames:?}") };
    let size: usize = headers.iter().map(|(name, values)| name.len() + values.len()).sum();
    assert!(size <= 16 << 10, "{size}");
}

#[test]
fn a_block_has_few_names_and_few_bytes() {
    let refused = |plain: &[u8]| decode(&mut Decoder::default(), &with_block(plain)).is_err();
    let names: Vec<String> = (0..65).map(|number| format!("name-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(!refused(&block(&headers[..64])));
    assert!(refused(&block(&headers)));
    assert!(!refused(&block(&[("name", &"v".repeat(15 << 10))])));
    assert!(refused(&block(&[("name", &"v".repeat(17 << 10))])));
    // As much as deflate can make of a control frame of the greatest length.
    assert!(refused(&block(&[("name", &"v".repeat(32 << 20))])));
    assert!(!refused(&block(&[(&"n".repeat(256), "")])));
    assert!(refused(&block(&[(&"n".repeat(257), "")])));
    assert!(refused(&[0xff; 4]), "four billion names");
}

#[test]
fn what_is_no_spdy_is_refused_and_what_is_unknown_is_passed_over() {
    let refused = |bytes: &[u8]| decode(&mut Decoder::default(), bytes).unwrap_err();
    assert_eq!(refused(&[0x80, 2, 0, 1, 0, 0, 0, 0]), FrameError::Version);
    assert_eq!(refused(&[0x80, 3, 0, 1, 0, 1, 0, 1]), FrameError::Length);
    assert_eq!(refused(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), FrameError::Length);
    assert_eq!(refused(&[0, 0, 0, 0, 0, 0, 0, 0]), FrameError::Stream);
    assert_eq!(refused(&[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4]), FrameError::Headers);
    let unknown_then_ping = [0x80, 3, 0, 99, 0, 0, 0, 1, 7, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9];
    assert_eq!(decode(&mut Decoder::default(), &unknown_then_ping).unwrap(), [Frame::Ping { id: 9 }]);
}
