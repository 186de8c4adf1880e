//! How far a pull is, from Docker's stream of one line a layer and change.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;

#[derive(Default)]
struct Layer {
    current: u64,
    total: Option<u64>,
}

/// Bytes of a pull.
#[derive(Default)]
pub struct PullProgress {
    layers: HashMap<String, Layer>,
}

impl PullProgress {
    /// Takes one line of the stream in; returns the bytes so far and in all (None until every layer's size is known),
    /// or None where the line says nothing about bytes.
    pub fn update(&mut self, line: &CreateImageInfo) -> Option<(u64, Option<u64>)> {
        let (id, status) = (line.id.as_ref()?, line.status.as_deref()?);
        let detail = line.progress_detail.as_ref();
        let bytes = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let layer = match status {
            "Pulling fs layer" | "Waiting" => {
                self.layers.entry(id.clone()).or_default();
                return None;
            }
            "Downloading" => self.layers.entry(id.clone()).or_default(),
            // A layer that is here already has no bytes; one that was never announced (the tag's own line) is none.
            "Already exists" | "Download complete" | "Pull complete" => {
                let layer = self.layers.entry(id.clone()).or_default();
                layer.current = layer.total.unwrap_or(layer.current);
                layer.total = Some(layer.current);
                return Some(self.sum());
            }
            _ => return None,
        };
        layer.current = bytes(detail?.current)?.max(layer.current);
        layer.total = bytes(detail?.total).filter(|total| *total > 0);
        Some(self.sum())
    }

    fn sum(&self) -> (u64, Option<u64>) {
        let current = self.layers.values().map(|layer| layer.current).sum();
        (current, self.layers.values().map(|layer| layer.total).sum())
    }
}
