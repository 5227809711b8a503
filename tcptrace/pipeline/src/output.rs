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

    /// Hands a chunk to the writer once it takes it. A chunk for a writer that has ended is dropped.
    pub async fn send(&self, chunk: BytesMut) {
        // Fails only when the writer has ended.
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

    /// Hands `last` to the writer and waits until everything is written. A reader that went away
    /// (`EPIPE`) is no error.
    ///
    /// Blocks as long as the reader does not read; to be called where that may be interrupted,
    /// and not in a task of the runtime.
    pub fn finish(self, last: BytesMut) -> io::Result<()> {
        // Fails only when the writer has ended; joining it says why.
        let _ = self.chunks.blocking_send(last.freeze());
        drop(self.chunks);
        match self.writer.join() {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the writing thread panicked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes, then fails for good.
    struct Failing(usize, io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(self.1.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_closed_pipe_is_not() {
        let end = |kind| Output::new(Failing(3, kind)).unwrap().finish(BytesMut::from("12345"));
        assert_eq!(end(io::ErrorKind::StorageFull).unwrap_err().kind(), io::ErrorKind::StorageFull);
        end(io::ErrorKind::BrokenPipe).unwrap();
    }

    #[test]
    fn a_writer_that_is_behind_gives_the_chunk_back() {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::new(writer).unwrap();
        let chunk = BytesMut::from(&*vec![b'x'; 1 << 16]);
        let mut taken = 0;
        let back = loop {
            match output.try_send(chunk.clone()) {
                Ok(()) => taken += 1,
                Err(TrySendError::Full(back)) => break back,
                Err(TrySendError::Closed(_)) => panic!("closed"),
            }
            assert!(taken <= WAITING + 2, "nothing bounds it");
        };
        assert_eq!(back, chunk);
        drop(reader);
        output.finish(back).unwrap();
    }
}
