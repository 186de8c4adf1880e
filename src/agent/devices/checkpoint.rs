//! The kubelet's file about devices: which container has which, and what their plugins said. A kubelet and an agent that
//! follow each other on a node read each other's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::messages::ContainerAllocateResponse;
use super::state::{Allocation, Ids, Pods};
use crate::host::fs::{FsError, read_if_exists, write_file};

/// Its name, beside the socket.
pub const FILE: &str = "kubelet_internal_checkpoint";
/// Its mode.
const MODE: u32 = 0o600;

/// Why what is there is not used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FsError),
    /// It is no checkpoint.
    #[error("the file is not as a kubelet writes it")]
    Json(#[from] serde_json::Error),
    /// It is not what was written.
    #[error("checkpoint is corrupted: its checksum is {said}, and that of its content {found}")]
    Corrupt {
        /// In the file.
        said: u64,
        /// Of what is there.
        found: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container_name: String,
    #[serde(rename = "ResourceName")]
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<BTreeMap<i64, Option<Vec<String>>>>,
    /// In base64.
    #[serde(rename = "AllocResp")]
    answer: Option<String>,
}

/// Writes what is known to a directory.
///
/// # Errors
/// The file cannot be written.
pub fn write(dir: &Path, pods: &Pods, registered: BTreeMap<String, Vec<String>>) -> Result<(), FsError> {
    let mut entries = Vec::new();
    for (uid, container, resource, allocation) in every(pods) {
        let Some(answer) = &allocation.answer else { continue };
        entries.push(Entry {
            pod_uid: uid.clone(),
            container_name: container.clone(),
            resource_name: resource.clone(),
            device_ids: Some(allocation.devices.iter().map(|(node, ids)| (*node, Some(ids.clone()))).collect()),
            answer: Some(STANDARD.encode(answer.encode_to_vec())),
        });
    }
    let data = Data {
        pod_device_entries: Some(entries).filter(|entries| !entries.is_empty()),
        registered_devices: Some(registered.into_iter().map(|(name, ids)| (name, Some(ids))).collect()),
    };
    let file = File { checksum: data.checksum(), data };
    let path = dir.join(FILE);
    let bytes = serde_json::to_vec(&file).map_err(|error| FsError::new("write", &path, error.into()))?;
    write_file(&path, &bytes, MODE).map(drop)
}

fn every(pods: &Pods) -> impl Iterator<Item = (&String, &String, &String, &Allocation)> {
    pods.iter().flat_map(|(uid, pod)| {
        let containers = pod.iter();
        containers.flat_map(move |(container, given)| {
            given.iter().map(move |(resource, allocation)| (uid, container, resource, allocation))
        })
    })
}

/// Reads what was known, and the resources that were registered; nothing where there is no file.
///
/// # Errors
/// The file is there, and of no use.
pub fn read(dir: &Path) -> Result<(Pods, Ids), CheckpointError> {
    let Some(bytes) = read_if_exists(&dir.join(FILE))? else { return Ok((Pods::new(), Ids::new())) };
    let File { data, checksum: said } = serde_json::from_slice(&bytes)?;
    let found = data.checksum();
    if said != found {
        return Err(CheckpointError::Corrupt { said, found });
    }
    let mut pods = Pods::new();
    for entry in data.pod_device_entries.into_iter().flatten() {
        let answer = STANDARD.decode(entry.answer.unwrap_or_default()).unwrap_or_default();
        // As with the kubelet, what cannot be read of one is no reason to forget the others.
        let Ok(answer) = ContainerAllocateResponse::decode(&answer[..]) else { continue };
        let devices = entry.device_ids.into_iter().flatten().map(|(node, ids)| (node, ids.unwrap_or_default()));
        let allocation = Allocation { devices: devices.collect(), answer: Some(answer) };
        let of_pod = pods.entry(entry.pod_uid).or_default();
        of_pod.entry(entry.container_name).or_default().insert(entry.resource_name, allocation);
    }
    let registered: BTreeSet<String> = data.registered_devices.into_iter().flatten().map(|(name, _)| name).collect();
    Ok((pods, registered))
}

impl Data {
    /// The kubelet's: FNV-1a, of 32 bits, of the data as Go's spew prints them.
    fn checksum(&self) -> u64 {
        let mut hash: u32 = 0x811c_9dc5;
        for byte in self.printed().bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        u64::from(hash)
    }

    fn printed(&self) -> String {
        let mut text = "(checkpoint.checkpointData){PodDeviceEntries:([]checkpoint.PodDevicesEntry)".to_owned();
        text += &self.pod_device_entries.as_ref().map_or_else(nil, |entries| list(entries.iter().map(Entry::printed)));
        text += " RegisteredDevices:(map[string][]string)";
        text += &self.registered_devices.as_ref().map_or_else(nil, map);
        text + "}"
    }
}

impl Entry {
    fn printed(&self) -> String {
        let Self { pod_uid, container_name, resource_name, device_ids, answer } = self;
        let mut text = format!(
            "{{PodUID:(string){pod_uid} ContainerName:(string){container_name} ResourceName:(string){resource_name}"
        );
        let ids = device_ids.as_ref().map_or_else(nil, map);
        let bytes = answer.as_ref().map(|answer| STANDARD.decode(answer).unwrap_or_default());
        let bytes = bytes.map_or_else(nil, |bytes| list(bytes.iter().map(u8::to_string)));
        // Writing to a string does not fail.
        let _ = write!(text, " DeviceIDs:(checkpoint.DevicesPerNUMA){ids} AllocResp:([]uint8){bytes}}}");
        text
    }
}

fn nil() -> String {
    "<nil>".to_owned()
}

fn list(parts: impl Iterator<Item = String>) -> String {
    format!("[{}]", parts.collect::<Vec<_>>().join(" "))
}

fn map<K: std::fmt::Display>(map: &BTreeMap<K, Option<Vec<String>>>) -> String {
    let value = |ids: &Option<Vec<String>>| ids.as_ref().map_or_else(nil, |ids| list(ids.iter().cloned()));
    format!("map{}", list(map.iter().map(|(key, ids)| format!("{key}:{}", value(ids)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as a kubelet 1.36 writes them.
    const KUBELETS: [&str; 3] = [
        r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":3467439661}"#,
        r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u-1","ContainerName":"c","ResourceName":"example.com/dev","DeviceIDs":{"-1":["b","a"]},"AllocResp":"CgQA/wEC"}],"RegisteredDevices":{"a.b/c":null,"example.com/dev":["a","b"]}},"Checksum":1936677692}"#,
        r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u-1","ContainerName":"c","ResourceName":"example.com/dev","DeviceIDs":{"-1":["q"],"0":["y","z w"],"1":["x"],"10":["m"]},"AllocResp":null},{"PodUID":"u-2","ContainerName":"d","ResourceName":"example.com/dev","DeviceIDs":null,"AllocResp":""}],"RegisteredDevices":{"example.com/dev":["a\"b"],"z.com/dev":[]}},"Checksum":1398857465}"#,
    ];

    #[test]
    fn the_checksum_is_the_kubelets_and_a_file_that_was_changed_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        for text in KUBELETS {
            let File { data, checksum } = serde_json::from_str(text).unwrap();
            assert_eq!(data.checksum(), checksum, "{}", data.printed());
            let path = dir.path().join(FILE);
            write_file(&path, text.replacen("example.com", "example.org", 1).as_bytes(), MODE).unwrap();
            let is_changed = text.contains("example.com");
            assert_eq!(matches!(read(dir.path()), Err(CheckpointError::Corrupt { .. })), is_changed, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), (Pods::new(), Ids::new()), "there is none");
        let answer = ContainerAllocateResponse { envs: [("A".into(), "b".into())].into(), ..Default::default() };
        let given = Allocation { devices: [(-1, vec!["d1".to_owned()])].into(), answer: Some(answer) };
        let asked = Allocation { answer: None, ..given.clone() };
        let of = |allocation| BTreeMap::from([("c".to_owned(), BTreeMap::from([("x.y/z".to_owned(), allocation)]))]);
        let pods: Pods = [("u".to_owned(), of(given.clone())), ("v".to_owned(), of(asked))].into();
        write(dir.path(), &pods, [("x.y/z".to_owned(), vec!["d1".to_owned()])].into()).unwrap();
        let (read_pods, registered) = read(dir.path()).unwrap();
        assert_eq!(
            (read_pods["u"]["c"]["x.y/z"].clone(), read_pods.len()),
            (given, 1),
            "what is asked is not given yet"
        );
        assert_eq!(registered, ["x.y/z".to_owned()].into());
    }
}
