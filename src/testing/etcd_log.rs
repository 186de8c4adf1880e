#![allow(clippy::unwrap_used, reason = "test support")]

//! etcd's log as etcd writes it.

use prost::Message;

/// [`records`] of an entry, and of what a member remembers of votes and terms.
const ENTRY: i64 = 2;
const STATE: i64 = 3;

/// `raftpb.Entry`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
}

/// `etcdserverpb.InternalRaftRequest`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(bytes = "vec", optional, tag = "100")]
    header: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    put: Option<Vec<u8>>,
}

/// `walpb.Record`.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// Records by kind and content, framed as etcd frames them: padded to eight bytes.
pub fn records(all: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, content) in all {
        let data = Record { kind: *kind, data: content.clone() }.encode_to_vec();
        let padding = (8 - data.len() % 8) % 8;
        let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
        bytes.extend((data.len() as u64 | mark).to_le_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len() + padding, 0);
    }
    bytes
}

/// What a member that elects itself writes.
pub fn election(term: u64, index: u64) -> Vec<u8> {
    let state = Entry { term, ..Entry::default() };
    // The term is the first field of a state, and the second of an entry.
    let state = [&[0x08], &state.encode_to_vec()[1..]].concat();
    records(&[(STATE, state), (ENTRY, Entry { term, index, data: vec![] }.encode_to_vec())])
}

/// A write of a client.
pub fn put(term: u64, index: u64, value: &str) -> Vec<u8> {
    let request = Request { header: Some(vec![]), put: Some(value.as_bytes().to_vec()) };
    records(&[(ENTRY, Entry { term, index, data: request.encode_to_vec() }.encode_to_vec())])
}

/// The newest term and index, and the writes by their index, of the whole records in `bytes`.
pub fn read(mut bytes: &[u8]) -> (u64, u64, Vec<(u64, String)>) {
    let (mut term, mut index, mut puts) = (0, 0, vec![]);
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length);
        let padding = if length >> 63 == 1 { (length >> 56 & 7) as usize } else { 0 };
        let length = (length & 0x00ff_ffff_ffff_ffff) as usize;
        if length == 0 {
            break;
        }
        let record = Record::decode(&rest[..length]).unwrap();
        bytes = &rest[length + padding..];
        if record.kind != ENTRY {
            continue;
        }
        let entry = Entry::decode(&*record.data).unwrap();
        (term, index) = (entry.term, entry.index);
        if let Some(put) = Request::decode(&*entry.data).unwrap().put {
            puts.push((index, String::from_utf8(put).unwrap()));
        }
    }
    (term, index, puts)
}
