#![allow(clippy::unwrap_used, reason = "test support")]

//! Databases as bbolt lays them out, made without the code that reads them.

/// Bytes of a page.
const PAGE: usize = 4096;
/// The kinds of pages.
const BRANCH: u16 = 1;
/// As [`BRANCH`].
const LEAF: u16 = 2;
/// As [`BRANCH`].
const META: u16 = 4;

/// Keys and values.
type Items = Vec<(Vec<u8>, Vec<u8>)>;

/// A database that is put together.
#[derive(Default)]
pub struct Builder {
    buckets: Vec<(String, Items)>,
}

impl Builder {
    /// Adds a bucket.
    pub fn bucket(&mut self, name: &str, items: &[(Vec<u8>, Vec<u8>)]) {
        self.buckets.push((name.to_owned(), items.to_vec()));
    }

    /// Adds the bucket of etcd's keys: by revision, name, and whether the key was deleted.
    pub fn keys(&mut self, all: &[(u64, &str, bool)]) {
        let item = |(revision, name, is_deleted): &(u64, &str, bool)| {
            let mark: &[u8] = if *is_deleted { b"t" } else { b"" };
            let key = [&revision.to_be_bytes()[..], b"_", &[0; 8], mark].concat();
            let value = [&[0x0a, name.len() as u8][..], name.as_bytes()].concat();
            (key, value)
        };
        self.bucket("key", &all.iter().map(item).collect::<Vec<_>>());
    }

    /// The file. The buckets `key` has two leaves below a branch, all others stand in their values.
    pub fn bytes(mut self) -> Vec<u8> {
        self.buckets.sort();
        let mut pages: Vec<Vec<u8>> = Vec::new();
        let mut root: Vec<(u32, Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, items) in &self.buckets {
            let flat: Vec<_> = items.iter().map(|(key, value)| (0, key.clone(), value.clone())).collect();
            let value = if name == "key" {
                let (left, right) = flat.split_at(flat.len() / 2);
                let first = pages.len() as u64 + 2;
                let children = [(left[0].1.clone(), first), (right[0].1.clone(), first + 1)];
                pages.extend([leaf(first, left), leaf(first + 1, right), branch(first + 2, &children)]);
                [(first + 2).to_le_bytes(), [0; 8]].concat()
            } else {
                [vec![0; 16], leaf(0, &flat)].concat()
            };
            root.push((1, name.clone().into_bytes(), value));
        }
        let top = pages.len() as u64 + 2;
        pages.push(leaf(top, &root));
        let heads = [meta(0, top, 6), meta(1, top, 7)];
        heads
            .into_iter()
            .chain(pages)
            .flat_map(|mut page| {
                assert!(page.len() <= PAGE);
                page.resize(PAGE, 0);
                page
            })
            .collect()
    }
}

fn head(number: u64, kind: u16, count: usize) -> Vec<u8> {
    [&number.to_le_bytes()[..], &kind.to_le_bytes(), &(count as u16).to_le_bytes(), &[0; 4]].concat()
}

fn leaf(number: u64, items: &[(u32, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut data) = (head(number, LEAF, items.len()), Vec::new());
    for (n, (kind, key, value)) in items.iter().enumerate() {
        let offset = (items.len() - n) * 16 + data.len();
        for number in [*kind, offset as u32, key.len() as u32, value.len() as u32] {
            bytes.extend(number.to_le_bytes());
        }
        data.extend([key.as_slice(), value].concat());
    }
    [bytes, data].concat()
}

fn branch(number: u64, children: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let (mut bytes, mut data) = (head(number, BRANCH, children.len()), Vec::new());
    for (n, (key, child)) in children.iter().enumerate() {
        let offset = (children.len() - n) * 16 + data.len();
        bytes.extend((offset as u32).to_le_bytes());
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend(child.to_le_bytes());
        data.extend_from_slice(key);
    }
    [bytes, data].concat()
}

fn meta(number: u64, root: u64, transaction: u64) -> Vec<u8> {
    let numbers = [0xED0C_DAED_u32, 2, PAGE as u32, 0];
    let mut body: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    body.extend([root, 0, u64::MAX, root + 1, transaction].iter().flat_map(|number| number.to_le_bytes()));
    let sum = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    [head(number, META, 0), body, sum.to_le_bytes().to_vec()].concat()
}
