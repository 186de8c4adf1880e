//! Frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};

/// The most bytes of a control frame that are taken. Data frames have no limit here: they come out in pieces.
const CONTROL_LIMIT: usize = 64 << 10;
/// The length field has 24 bits.
const DATA_LIMIT: usize = (1 << 24) - 1;
/// Every frame begins with eight bytes.
const HEAD: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
/// The one setting that is looked at.
const INITIAL_WINDOW: u32 = 7;

/// Types of control frames.
mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Reasons of `RST_STREAM`.
pub mod status {
    /// The frame is none that may come now.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// The stream is not taken.
    pub const REFUSED_STREAM: u32 = 3;
    /// The stream is not wanted any more.
    pub const CANCEL: u32 = 5;
    /// More was granted than can be counted.
    pub const FLOW_CONTROL_ERROR: u32 = 7;
}

/// One frame. Streams of clients have odd numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A stream begins.
    SynStream {
        /// Its number.
        id: u32,
        /// Its sender says nothing more on it.
        fin: bool,
        /// Nothing comes back on it.
        unidirectional: bool,
        /// What it is for.
        headers: Headers,
    },
    /// A stream is taken.
    SynReply {
        /// Its number.
        id: u32,
        /// Its sender says nothing more on it.
        fin: bool,
        /// More about it.
        headers: Headers,
    },
    /// A stream is broken off.
    RstStream {
        /// Its number.
        id: u32,
        /// Why; see [`status`].
        status: u32,
    },
    /// How the sender works.
    Settings {
        /// Bytes that may be under way to it on a new stream, if it says so.
        initial_window: Option<u32>,
    },
    /// Is the peer there?
    Ping {
        /// To be sent back.
        id: u32,
    },
    /// The sender takes no more streams.
    GoAway {
        /// The last one it has taken.
        last: u32,
        /// Why; 0 as a rule.
        status: u32,
    },
    /// More about a stream.
    Headers {
        /// Its number.
        id: u32,
        /// Its sender says nothing more on it.
        fin: bool,
        /// What more.
        headers: Headers,
    },
    /// The sender has taken bytes off a stream, and more may come.
    WindowUpdate {
        /// Its number, 0 for the whole connection.
        id: u32,
        /// How many.
        delta: u32,
    },
    /// Bytes of a stream.
    Data {
        /// Its number.
        id: u32,
        /// They are its sender's last.
        fin: bool,
        /// The bytes: all of a frame's, or the next of them.
        bytes: Bytes,
    },
}

/// Bytes that are no SPDY. Nothing can be read behind them: headers share their compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version than 3.
    #[error("not SPDY/3")]
    Version,
    /// A frame whose length does not fit its type.
    #[error("a frame of a length it cannot have")]
    Length,
    /// A stream without a number.
    #[error("a frame of stream 0")]
    Stream,
    /// Headers that cannot be read.
    #[error("headers that cannot be read")]
    Headers,
}

/// Turns bytes into frames.
pub struct Decoder {
    buffer: BytesMut,
    inflater: Inflater,
    /// The data frame that is being read: its stream, whether it is the last, and how many bytes are still to come.
    data: Option<(u32, bool, usize)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), inflater: Inflater::new(), data: None }
    }
}

impl Decoder {
    /// The buffer to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame, None until more bytes have come.
    ///
    /// # Errors
    /// See [`FrameError`]; nothing comes after one.
    pub fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(piece) = self.next_piece() {
                return Ok(Some(piece));
            }
            if self.data.is_some() || self.buffer.len() < HEAD {
                return Ok(None);
            }
            let mut head = &self.buffer[..HEAD];
            let (first, flags) = (head.get_u32(), head.get_u8());
            let length = usize::try_from(head.get_uint(3)).map_err(|_| FrameError::Length)?;
            if first >> 31 == 0 {
                if first == 0 {
                    return Err(FrameError::Stream);
                }
                self.buffer.advance(HEAD);
                self.data = Some((first, flags & FIN != 0, length));
                continue;
            }
            if first >> 16 & 0x7fff != u32::from(VERSION) {
                return Err(FrameError::Version);
            }
            if length > CONTROL_LIMIT {
                return Err(FrameError::Length);
            }
            if self.buffer.len() < HEAD.saturating_add(length) {
                return Ok(None);
            }
            self.buffer.advance(HEAD);
            let body = self.buffer.split_to(length).freeze();
            let kind = u16::try_from(first & 0xffff).unwrap_or_default();
            if let Some(frame) = self.control(kind, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// As much of a data frame as is there; an empty frame too.
    fn next_piece(&mut self) -> Option<Frame> {
        let (id, fin, rest) = self.data?;
        let length = rest.min(self.buffer.len());
        if length == 0 && rest != 0 {
            return None;
        }
        let bytes = self.buffer.split_to(length).freeze();
        self.data = (length < rest).then_some((id, fin, rest.saturating_sub(length)));
        Some(Frame::Data { id, fin: fin && self.data.is_none(), bytes })
    }

    /// A control frame, None for one of a type that is to be passed over.
    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, FrameError> {
        let least = match kind {
            kind::SYN_STREAM => 10,
            kind::RST_STREAM | kind::GOAWAY | kind::WINDOW_UPDATE => 8,
            kind::SYN_REPLY | kind::HEADERS | kind::SETTINGS | kind::PING => 4,
            _ => return Ok(None),
        };
        if body.len() < least {
            return Err(FrameError::Length);
        }
        let fin = flags & FIN != 0;
        let first = body.get_u32();
        let id = first & 0x7fff_ffff;
        if id == 0 && matches!(kind, kind::SYN_STREAM | kind::SYN_REPLY | kind::HEADERS | kind::RST_STREAM) {
            return Err(FrameError::Stream);
        }
        Ok(Some(match kind {
            kind::SYN_STREAM => {
                body.advance(6);
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Frame::SynStream { id, fin, unidirectional, headers: self.inflater.read(&body)? }
            }
            kind::SYN_REPLY => Frame::SynReply { id, fin, headers: self.inflater.read(&body)? },
            kind::HEADERS => Frame::Headers { id, fin, headers: self.inflater.read(&body)? },
            kind::RST_STREAM => Frame::RstStream { id, status: body.get_u32() },
            kind::GOAWAY => Frame::GoAway { last: id, status: body.get_u32() },
            kind::WINDOW_UPDATE => Frame::WindowUpdate { id, delta: body.get_u32() & 0x7fff_ffff },
            kind::SETTINGS => Frame::Settings { initial_window: setting(first, &body)? },
            _ => Frame::Ping { id: first },
        }))
    }
}

fn setting(count: u32, body: &[u8]) -> Result<Option<u32>, FrameError> {
    let (entries, rest) = body.as_chunks::<8>();
    if !rest.is_empty() || u32::try_from(entries.len()) != Ok(count) {
        return Err(FrameError::Length);
    }
    let value = |mut entry: &[u8]| (entry.get_u32() & 0x00ff_ffff == INITIAL_WINDOW).then(|| entry.get_u32());
    Ok(entries.iter().find_map(|entry| value(entry)))
}

/// Turns frames into bytes.
pub struct Encoder {
    deflater: Deflater,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { deflater: Deflater::new() }
    }
}

impl Encoder {
    /// Appends a frame. One with more data than a frame can hold becomes several.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, fin, unidirectional, headers } => {
                let block = self.deflater.write(headers);
                let one_way = if *unidirectional { UNIDIRECTIONAL } else { 0 };
                control(kind::SYN_STREAM, flag(*fin) | one_way, block.len().saturating_add(10), out);
                out.put_u32(*id);
                // Associated with no stream, of the highest priority, in no slot.
                out.put_bytes(0, 6);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => self.about(kind::SYN_REPLY, *id, *fin, headers, out),
            Frame::Headers { id, fin, headers } => self.about(kind::HEADERS, *id, *fin, headers, out),
            Frame::RstStream { id, status } => pair(kind::RST_STREAM, *id, *status, out),
            Frame::GoAway { last, status } => pair(kind::GOAWAY, *last, *status, out),
            Frame::WindowUpdate { id, delta } => pair(kind::WINDOW_UPDATE, *id, *delta, out),
            Frame::Settings { initial_window } => {
                let entries: &[u32] = initial_window.as_slice();
                control(kind::SETTINGS, 0, entries.len().saturating_mul(8).saturating_add(4), out);
                out.put_u32(u32::from(initial_window.is_some()));
                for window in entries {
                    out.put_u32(INITIAL_WINDOW);
                    out.put_u32(*window);
                }
            }
            Frame::Ping { id } => {
                control(kind::PING, 0, 4, out);
                out.put_u32(*id);
            }
            Frame::Data { id, fin, bytes } => data(*id, *fin, bytes, out),
        }
    }

    fn about(&mut self, kind: u16, id: u32, fin: bool, headers: &Headers, out: &mut BytesMut) {
        let block = self.deflater.write(headers);
        control(kind, flag(fin), block.len().saturating_add(4), out);
        out.put_u32(id);
        out.put_slice(&block);
    }
}

fn flag(fin: bool) -> u8 {
    if fin { FIN } else { 0 }
}

fn control(kind: u16, flags: u8, length: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}

fn pair(kind: u16, first: u32, second: u32, out: &mut BytesMut) {
    control(kind, 0, 8, out);
    out.put_u32(first);
    out.put_u32(second);
}

fn data(id: u32, fin: bool, bytes: &[u8], out: &mut BytesMut) {
    let mut rest = bytes;
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(DATA_LIMIT));
        out.put_u32(id);
        out.put_u8(flag(fin && behind.is_empty()));
        out.put_uint(piece.len() as u64, 3);
        out.put_slice(piece);
        if behind.is_empty() {
            return;
        }
        rest = behind;
    }
}
