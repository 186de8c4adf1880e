//! Pages as bytes.

/// Bytes of a page's head: its number, kind, count of elements, and how many pages follow that belong to it.
pub const HEADER: usize = 16;
/// Bytes of a meta with its page's head.
pub const META: usize = HEADER + 64;
/// Bytes of an element of either kind.
const ELEMENT: usize = 16;
/// A meta says so.
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Kinds of pages.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const META_PAGE: u16 = 4;
/// Kind of an element: the value is a bucket.
const BUCKET: u32 = 1;
/// In the place of the page that lists free pages: none does, and they are found when the database is opened.
pub const NO_FREE_LIST: u64 = u64::MAX;

/// The head of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of a page.
    pub page_size: u64,
    /// The page of the root bucket.
    pub root: u64,
    /// The root bucket's own counter, which etcd does not use.
    pub sequence: u64,
    /// How many pages there are.
    pub pages: u64,
    /// The transaction that has written it.
    pub transaction: u64,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// FNV-1a of 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Meta {
    /// That of a page's first [`META`] bytes; None where they are none.
    pub fn decode(bytes: &[u8; META]) -> Option<Self> {
        let body = &bytes[HEADER..];
        let is_one = word(body, 0)? == MAGIC && word(body, 4)? == VERSION && long(body, 56)? == checksum(&body[..56]);
        let (page_size, pages) = (u64::from(word(body, 8)?), long(body, 40)?);
        let root = long(body, 16)?;
        let meta = Self { page_size, root, sequence: long(body, 24)?, pages, transaction: long(body, 48)? };
        (is_one && page_size.is_power_of_two() && page_size >= 1024 && root < pages).then_some(meta)
    }

    /// As the first bytes of its page, and which page that is.
    pub fn encode(&self) -> (u64, Vec<u8>) {
        let number = self.transaction % 2;
        let mut body = Vec::with_capacity(META);
        for value in [MAGIC, VERSION, u32::try_from(self.page_size).unwrap_or_default(), 0] {
            body.extend(value.to_le_bytes());
        }
        for value in [self.root, self.sequence, NO_FREE_LIST, self.pages, self.transaction] {
            body.extend(value.to_le_bytes());
        }
        body.extend(checksum(&body).to_le_bytes());
        (number, [header(number, META_PAGE, 0, 0), body].concat())
    }
}

fn header(number: u64, kind: u16, count: u16, more: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(more.to_le_bytes());
    bytes
}

/// What a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keys and the pages below them.
    Branch,
    /// Keys and values.
    Leaf,
}

/// A page and those that belong to it.
#[derive(Debug)]
pub struct Page {
    bytes: Vec<u8>,
    /// What is in it.
    pub kind: Kind,
    /// How many elements.
    pub count: usize,
}

/// A key and its value.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Whether the value is a bucket.
    pub is_bucket: bool,
}

impl Page {
    /// The page of `bytes`, which says that it has this number; one in a bucket's value has none.
    pub fn new(bytes: Vec<u8>, number: Option<u64>) -> Result<Self, String> {
        let short = || "a page without a head".to_owned();
        let own = long(&bytes, 0).ok_or_else(short)?;
        let kinds = word(&bytes, 8).ok_or_else(short)?.to_le_bytes();
        if bytes.len() < HEADER || number.is_some_and(|number| number != own) {
            return Err(format!("page {} says that it is page {own}", number.unwrap_or_default()));
        }
        let kind = match u16::from_le_bytes([kinds[0], kinds[1]]) {
            BRANCH => Kind::Branch,
            LEAF => Kind::Leaf,
            other => return Err(format!("page {own} is of the kind {other}, not one with keys")),
        };
        Ok(Self { bytes, kind, count: usize::from(u16::from_le_bytes([kinds[2], kinds[3]])) })
    }

    /// Bytes from `at` on, as far as an element says.
    fn part(&self, at: usize, length: u32) -> Result<&[u8], String> {
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
        end.and_then(|end| self.bytes.get(at..end)).ok_or_else(|| "a key or value is longer than its page".to_owned())
    }

    /// Where an element is, and four numbers of it.
    fn element(&self, at: usize) -> Result<(usize, [u32; 4]), String> {
        let place = HEADER + at * ELEMENT;
        let read = |n: usize| word(&self.bytes, place + 4 * n).ok_or_else(|| "a page is too short".to_owned());
        Ok((place, [read(0)?, read(1)?, read(2)?, read(3)?]))
    }

    /// A key of a leaf.
    pub fn item(&self, at: usize) -> Result<Item<'_>, String> {
        let (place, [kind, offset, key, value]) = self.element(at)?;
        if self.kind != Kind::Leaf {
            return Err("a branch is where a leaf has to be".to_owned());
        }
        let begin = place + offset as usize;
        let key = self.part(begin, key)?;
        Ok(Item { key, value: self.part(begin + key.len(), value)?, is_bucket: kind & BUCKET != 0 })
    }

    /// The first key below a page, and that page.
    pub fn branch(&self, at: usize) -> Result<(&[u8], u64), String> {
        let (place, [offset, key, low, high]) = self.element(at)?;
        let key = self.part(place + offset as usize, key)?;
        Ok((key, u64::from(low) | u64::from(high) << 32))
    }
}

/// An element that is written.
pub struct NewItem<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Whether the value is a bucket.
    pub is_bucket: bool,
}

/// A leaf with its head; one in a bucket's value has the number 0 and no end to fill up to.
pub fn leaf(number: u64, page_size: Option<u64>, items: &[NewItem<'_>]) -> Option<Vec<u8>> {
    let mut elements = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let offset = (items.len() - n) * ELEMENT + data.len();
        let kind = if item.is_bucket { BUCKET } else { 0 };
        for value in [offset, item.key.len(), item.value.len()].map(u32::try_from) {
            if elements.len() % ELEMENT == 0 {
                elements.extend(kind.to_le_bytes());
            }
            elements.extend(value.ok()?.to_le_bytes());
        }
        data.extend_from_slice(item.key);
        data.extend_from_slice(item.value);
    }
    whole((number, LEAF), page_size, items.len(), &[elements, data].concat())
}

/// A branch with its head: the first key below each page, and that page.
pub fn branch(number: u64, page_size: u64, items: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
    let (mut elements, mut data) = (Vec::new(), Vec::new());
    for (n, (key, child)) in items.iter().enumerate() {
        let offset = (items.len() - n) * ELEMENT + data.len();
        for value in [offset, key.len()].map(u32::try_from) {
            elements.extend(value.ok()?.to_le_bytes());
        }
        elements.extend(child.to_le_bytes());
        data.extend_from_slice(key);
    }
    whole((number, BRANCH), Some(page_size), items.len(), &[elements, data].concat())
}

fn whole((number, kind): (u64, u16), page_size: Option<u64>, count: usize, body: &[u8]) -> Option<Vec<u8>> {
    let length = (HEADER + body.len()) as u64;
    let pages = page_size.map_or(1, |size| length.div_ceil(size));
    let head = header(number, kind, u16::try_from(count).ok()?, u32::try_from(pages - 1).ok()?);
    let mut bytes = [head, body.to_vec()].concat();
    if let Some(size) = page_size {
        bytes.resize(usize::try_from(pages * size).ok()?, 0);
    }
    Some(bytes)
}
