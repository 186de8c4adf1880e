//! Blocks of names and values, compressed with a state that lasts as long as the connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use super::frame::FrameError;

/// The most bytes of a block, uncompressed. Those of Kubernetes' streams have less than a hundred.
const LIMIT: usize = 16 << 10;
/// The most names in a block.
const NAMES: usize = 64;
/// The longest name.
const NAME_LIMIT: usize = 256;

/// Names and values in order. Several values of a name stand in one text with zero bytes between them, as they come: a
/// text for each would make a thousand times as much of a block as it says.
pub type Headers = Vec<(String, String)>;

/// Reads blocks.
pub struct Inflater {
    state: Decompress,
}

impl Inflater {
    pub fn new() -> Self {
        Self { state: Decompress::new(true) }
    }

    /// The headers of one frame.
    pub fn read(&mut self, mut compressed: &[u8]) -> Result<Headers, FrameError> {
        let mut plain = Vec::with_capacity(512);
        loop {
            let before = (self.state.total_in(), plain.len());
            let status = match self.state.decompress_vec(compressed, &mut plain, FlushDecompress::Sync) {
                Ok(status) => status,
                Err(error) if error.needs_dictionary().is_some() => {
                    let taken = usize::try_from(self.state.total_in().saturating_sub(before.0)).unwrap_or(usize::MAX);
                    compressed = compressed.get(taken..).unwrap_or_default();
                    self.state.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                    continue;
                }
                Err(_) => return Err(FrameError::Headers),
            };
            let taken = usize::try_from(self.state.total_in().saturating_sub(before.0)).unwrap_or(usize::MAX);
            compressed = compressed.get(taken..).unwrap_or_default();
            if plain.len() > LIMIT || status == Status::StreamEnd {
                return Err(FrameError::Headers);
            }
            // Room that is left says that everything has come out.
            if compressed.is_empty() && plain.len() < plain.capacity() {
                return parse(&plain);
            }
            if taken == 0 && plain.len() == before.1 && plain.len() < plain.capacity() {
                return Err(FrameError::Headers);
            }
            // No more than what tells a block that is too long.
            plain.reserve_exact(plain.len().max(512).min(LIMIT.saturating_add(1).saturating_sub(plain.len())));
        }
    }
}

/// Writes blocks.
pub struct Deflater {
    state: Compress,
}

impl Deflater {
    pub fn new() -> Self {
        let mut state = Compress::new(Compression::best(), true);
        // Fails only after the first byte.
        let _ = state.set_dictionary(&dictionary());
        Self { state }
    }

    /// One frame's headers, compressed.
    pub fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let plain = compose(headers);
        let mut compressed = Vec::with_capacity(plain.len().saturating_add(64));
        let mut rest = plain.as_slice();
        loop {
            let before = self.state.total_in();
            // Fails only for a state that is misused.
            let _ = self.state.compress_vec(rest, &mut compressed, FlushCompress::Sync);
            let taken = usize::try_from(self.state.total_in().saturating_sub(before)).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() && compressed.len() < compressed.capacity() {
                return compressed;
            }
            compressed.reserve(256);
        }
    }
}

/// A name that is given several times gets all its values.
fn compose(headers: &Headers) -> Vec<u8> {
    let mut merged: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        match merged.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push('\0');
                values.push_str(value);
            }
            None => merged.push((name, value.clone())),
        }
    }
    let mut plain = number(merged.len()).to_vec();
    for text in merged.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend(number(text.len()));
        plain.extend_from_slice(text.as_bytes());
    }
    plain
}

fn number(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn parse(mut plain: &[u8]) -> Result<Headers, FrameError> {
    let count = take_number(&mut plain)?;
    if count > NAMES {
        return Err(FrameError::Headers);
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = take_text(&mut plain)?;
        if name.is_empty() || name.len() > NAME_LIMIT {
            return Err(FrameError::Headers);
        }
        headers.push((name, take_text(&mut plain)?));
    }
    if plain.is_empty() { Ok(headers) } else { Err(FrameError::Headers) }
}

fn take_number(plain: &mut &[u8]) -> Result<usize, FrameError> {
    let (number, rest) = plain.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
    *plain = rest;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| FrameError::Headers)
}

fn take_text(plain: &mut &[u8]) -> Result<String, FrameError> {
    let length = take_number(plain)?;
    let (text, rest) = plain.split_at_checked(length).ok_or(FrameError::Headers)?;
    *plain = rest;
    // Put right, it would be longer than what was counted.
    str::from_utf8(text).map(str::to_owned).map_err(|_| FrameError::Headers)
}
