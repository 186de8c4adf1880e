//! Reading a container's log.

use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{Docker, translate};
use crate::runtime::{LogOptions, Result, last_lines, limited};

const CALL: &str = "read the log of a container";

impl Docker {
    /// The last lines, stdout and stderr in one.
    pub(super) async fn last_log_lines(&self, id: &str, lines: usize) -> Result<Vec<String>> {
        let options = LogOptions { tail: u64::try_from(lines).ok(), ..LogOptions::default() };
        last_lines(self.read_log(id, &options).await?, lines).await
    }

    /// Docker marks each piece with the stream it came from, unless the container has a terminal; the client takes the
    /// marks away.
    pub(super) async fn read_log(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let since = options.since.map_or(0, |at| i32::try_from(at.as_second().max(0)).unwrap_or(i32::MAX));
        let asked = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(options.follow)
            .timestamps(options.timestamps)
            .since(since)
            .tail(&tail)
            .build();
        let (address, what) = (self.address(), format!("container {id}"));
        let pieces = self.client().await?.clone().logs(id, Some(asked));
        let pieces = pieces.map(move |piece| match piece {
            Ok(piece) => Ok(piece.into_bytes()),
            Err(error) => Err(translate(&address, CALL, &what, error)),
        });
        Ok(limited(pieces, options.limit_bytes))
    }
}
