//! What `docker load` takes: a tar of the layer, the image's configuration and a manifest. It is written straight into
//! the request, so that an image of any size needs neither memory nor a temporary file; the layer is therefore read
//! twice, once for its digest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest;
use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{BuildError, Content, Docker, Entry, PATH};

/// Size of the pieces that go to Docker.
const PIECE: usize = 256 * 1024;

/// Everything an image is.
pub struct Image {
    pub reference: String,
    pub architecture: &'static str,
    pub entrypoint: Vec<String>,
    pub entries: Vec<Entry>,
}

impl Docker {
    /// Loads an image under its reference.
    pub(super) async fn load(&self, image: Image) -> Result<(), BuildError> {
        let reference = image.reference.clone();
        if reference.contains('@') || !reference.rsplit('/').next().is_some_and(|name| name.contains(':')) {
            return Err(BuildError::Reference { reference });
        }
        let failed = |source| BuildError::Load { reference: reference.clone(), source };
        let client = self.client().await.map_err(failed)?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
        let writing = tokio::task::spawn_blocking(move || image.write(sender));
        let pieces = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut answers = client.import_image_stream(options, pieces, None);
        let mut refused = None;
        while let Some(answer) = answers.next().await {
            refused = refused.or(answer.err());
        }
        // An error of ours explains Docker's: it comes first.
        writing.await.unwrap_or(Ok(()))?;
        match refused {
            Some(error) => Err(failed(self.error("load image", &reference, error))),
            None => Ok(()),
        }
    }
}

impl Image {
    /// Writes the archive into the request. A local file that cannot be read ends the request with an error.
    fn write(&self, sender: mpsc::Sender<io::Result<Bytes>>) -> Result<(), BuildError> {
        let written = self.write_archive(&sender);
        if let Err(error) = &written {
            // Not sent when Docker hung up first, which is what it says then.
            let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
        }
        match written {
            Err(BuildError::Load { .. }) => Ok(()),
            other => other,
        }
    }

    fn write_archive(&self, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), BuildError> {
        let mut digest = Digest::default();
        self.write_layer(&mut digest)?;
        let (layer, size) = digest.finish();
        let config = self.config(&layer).to_string();
        let (config_digest, _) = {
            let mut digest = Digest::default();
            digest.write_all(config.as_bytes()).map_err(|source| self.hung_up(source))?;
            digest.finish()
        };
        let (config_name, layer_name) = (format!("{config_digest}.json"), format!("{layer}.tar"));
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name] }]);

        let mut out = BufWriter::with_capacity(PIECE, Pieces(sender));
        let gone = |source| self.hung_up(source);
        out.write_all(header(&layer_name, 0o644, size, 0).as_bytes()).map_err(gone)?;
        self.write_layer(&mut out)?;
        pad(&mut out, size).map_err(gone)?;
        for (name, text) in [(config_name.as_str(), config), ("manifest.json", manifest.to_string())] {
            let size = text.len() as u64;
            out.write_all(header(name, 0o644, size, 0).as_bytes()).map_err(gone)?;
            out.write_all(text.as_bytes()).map_err(gone)?;
            pad(&mut out, size).map_err(gone)?;
        }
        out.write_all(&[0; 1024]).map_err(gone)?;
        out.flush().map_err(gone)
    }

    fn hung_up(&self, error: io::Error) -> BuildError {
        let source = crate::runtime::RuntimeError::Refused { call: "load image".into(), message: error.to_string() };
        BuildError::Load { reference: self.reference.clone(), source }
    }

    /// The layer, byte for byte the same for the same files.
    pub(super) fn write_layer(&self, out: impl Write) -> Result<(), BuildError> {
        let mut tar = tar::Builder::new(out);
        for entry in &self.entries {
            append(&mut tar, entry)?;
        }
        tar.finish().map_err(|source| self.hung_up(source))
    }

    /// The image's configuration. It was created when its newest program was, not when it was built, so that the same
    /// programs make the same image.
    fn config(&self, layer: &str) -> Value {
        let newest = self.entries.iter().map(modified).max().unwrap_or_default();
        let created = i64::try_from(newest).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let created = created.unwrap_or_default().to_string();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": created,
            "config": { "Entrypoint": self.entrypoint, "Env": [format!("PATH={PATH}")] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
            "history": [{ "created": created, "created_by": "kubeboot images build" }],
        })
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, entry: &Entry) -> Result<(), BuildError> {
    let name = entry.path.trim_start_matches('/');
    let of = match &entry.content {
        Content::Local(path) => path.clone(),
        _ => entry.path.clone().into(),
    };
    let failed = |source| BuildError::Read { path: of.clone(), source };
    let modified = modified(entry);
    match &entry.content {
        Content::Directory => {
            let mut header = header("", entry.mode, 0, modified);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{name}/"), io::empty()).map_err(failed)
        }
        Content::Link(target) => {
            let mut header = header("", entry.mode, 0, modified);
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, target).map_err(failed)
        }
        Content::Text(text) => {
            let mut header = header("", entry.mode, text.len() as u64, modified);
            tar.append_data(&mut header, name, text.as_bytes()).map_err(failed)
        }
        Content::Local(path) => {
            let file = File::open(path).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            let mut header = header("", entry.mode, size, modified);
            tar.append_data(&mut header, name, file).map_err(failed)
        }
    }
}

/// Seconds since the epoch at which a local file was changed; 0 for what has no file.
fn modified(entry: &Entry) -> u64 {
    let Content::Local(path) = &entry.content else { return 0 };
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs())
}

/// A header of a regular file of root's; `name` must be short and may be empty where the builder sets it.
fn header(name: &str, mode: u32, size: u64, modified: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let length = name.len().min(100);
    header.as_old_mut().name[..length].copy_from_slice(&name.as_bytes()[..length]);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header.set_cksum();
    header
}

/// Fills the last block of a file of this size.
fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    const BLOCK: u64 = 512;
    let missing = usize::try_from((BLOCK - size % BLOCK) % BLOCK).unwrap_or_default();
    out.write_all(&[0; 512][..missing])
}

/// SHA-256 and length of what is written.
struct Digest {
    context: digest::Context,
    length: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { context: digest::Context::new(&digest::SHA256), length: 0 }
    }
}

impl Digest {
    fn finish(self) -> (String, u64) {
        let hex = self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        (hex, self.length)
    }
}

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The request's body, written from a thread that may wait.
struct Pieces<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
