//! The way out: a thread that writes, so that a slow reader stalls nobody.

use std::{
    io::{self, Write},
    thread::{self, JoinHandle},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::{self, error::TrySendError};

/// Chunks that may wait for the writer: some megabytes.
const WAITING: usize = 16;

/// Where views write to.
pub struct Output {
    chunks: mpsc::Sender<Bytes>,
    writer: JoinHandle<io::Result<()>>,
}

impl Output {
    /// Writes to `to` on a thread of its own, each chunk at once.
    pub fn new(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let (chunks, mut waiting) = mpsc::channel::<Bytes>(WAITING);
        let writer = thread::Builder::new().name("output".into()).spawn(move || {
            while let Some(chunk) = waiting.blocking_recv() {
                to.write_all(&chunk)?;
                to.flush()?;
            }
            Ok(())
        })?;
        Ok(Self { chunks, writer })
    }

    /// Hands a chunk to the writer; gives it back while the writer is behind. A chunk for a
    /// writer that has ended is dropped.
    pub fn try_send(&self, chunk: BytesMut) -> Result<(), TrySendError<BytesMut>> {
        match self.chunks.try_reserve() {
            Ok(permit) => {
                permit.send(chunk.freeze());
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(TrySendError::Full(chunk)),
            Err(TrySendError::Closed(())) => Err(TrySendError::Closed(chunk)),
        }
    }

    /// Hands a chunk to the writer, when it is ready.
    pub async fn send(&self, chunk: BytesMut) {
        // Fails only when the writer has ended; `finish` says why.
        let _ = self.chunks.send(chunk.freeze()).await;
    }

    /// Whether the writer has ended.
    pub fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Waits until the writer has ended.
    pub async fn closed(&self) {
        self.chunks.closed().await;
    }

    /// Waits until everything is written. A reader that went away (`EPIPE`) is no error.
    ///
    /// Blocks as long as the reader does not read; to be called where that may be interrupted.
    pub fn finish(self) -> io::Result<()> {
        drop(self.chunks);
        match self.writer.join() {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the writing thread panicked")),
        }
    }
}
