//! A Parquet file in memory, one row group after the other.
//!
//! A file has the columns of a row group one behind the other, while rows come with all columns. So
//! the chunk of each column grows in a buffer of its own, encoded and compressed, until the row
//! group is full. Must not hold more than one row group.
//!
//! parquet's `arrow` feature does this too, and would bring arrow's arrays, kernels and IPC along:
//! a fifth of the binary, for what are a few writers of columns here.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use parquet::{
    column::{
        page::{CompressedPage, PageWriteSpec, PageWriter},
        writer::{ColumnWriter, get_column_writer},
    },
    errors::Result as ParquetResult,
    file::{
        metadata::KeyValue,
        properties::WriterPropertiesPtr,
        writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite},
    },
    schema::types::TypePtr,
};

use super::{
    column::{Column, Row},
    format::ExportError,
};

/// Rows of a row group: what is in memory before it is written, compressed.
const GROUP_ROWS: usize = 1 << 17;

/// The same in bytes, whichever comes first.
const GROUP_BYTES: usize = 32 << 20;

/// The file.
pub(super) struct Groups {
    file: SerializedFileWriter<Vec<u8>>,
    properties: WriterPropertiesPtr,
    /// The row group that is being filled.
    chunks: Vec<Chunk>,
    rows: usize,
}

impl Groups {
    /// A file with this schema.
    pub(super) fn new(
        schema: TypePtr,
        properties: WriterPropertiesPtr,
    ) -> Result<Self, ExportError> {
        let file = SerializedFileWriter::new(Vec::new(), schema, Arc::clone(&properties))?;
        Ok(Self { file, properties, chunks: Vec::new(), rows: 0 })
    }

    /// Adds `rows`; `out` gets each row group once it is full.
    pub(super) fn write<T>(
        &mut self,
        columns: &[Column<T>],
        mut rows: &[Row<'_, T>],
        out: &mut BytesMut,
    ) -> Result<(), ExportError> {
        while !rows.is_empty() {
            if self.chunks.is_empty() {
                let described = self.file.schema_descr().columns();
                self.chunks = described
                    .iter()
                    .map(|column| {
                        let pages = Pages::default();
                        let writer = PagesWriter(TrackedWrite::new(pages.clone()));
                        let properties = Arc::clone(&self.properties);
                        let writer =
                            get_column_writer(Arc::clone(column), properties, Box::new(writer));
                        Chunk { writer, pages }
                    })
                    .collect();
            }
            let (fit, rest) = rows.split_at(rows.len().min(GROUP_ROWS - self.rows));
            for (column, chunk) in columns.iter().zip(&mut self.chunks) {
                column.append(fit, &mut chunk.writer)?;
            }
            self.rows += fit.len();
            let bytes: usize = self.chunks.iter().map(|chunk| chunk.pages.len()).sum();
            if self.rows >= GROUP_ROWS || bytes >= GROUP_BYTES {
                self.end_group()?;
                self.drain(out)?;
            }
            rows = rest;
        }
        Ok(())
    }

    /// Adds a pair to the end of the file.
    pub(super) fn say(&mut self, pair: KeyValue) {
        self.file.append_key_value_metadata(pair);
    }

    /// Writes what is left, and the end.
    pub(super) fn finish(&mut self, out: &mut BytesMut) -> Result<(), ExportError> {
        self.end_group()?;
        self.file.finish()?;
        self.drain(out)
    }

    fn end_group(&mut self) -> Result<(), ExportError> {
        self.rows = 0;
        let chunks = mem::take(&mut self.chunks);
        if chunks.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for Chunk { writer, pages } in chunks {
            let closed = writer.close()?;
            group.append_column(&pages.take(), closed)?;
        }
        group.close()?;
        Ok(())
    }

    /// Moves what is written to `out`.
    fn drain(&mut self, out: &mut BytesMut) -> Result<(), ExportError> {
        self.file.flush().map_err(|error| ExportError(error.to_string()))?;
        // The file counts its bytes itself, so they may be taken from it.
        out.put_slice(&mem::take(self.file.inner_mut()));
        Ok(())
    }
}

/// A column of the row group, and its pages so far.
struct Chunk {
    writer: ColumnWriter<'static>,
    pages: Pages,
}

/// Bytes of pages. The writer of a column has them, and whoever puts the row group together.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Pages {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Bytes {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// parquet's own writer of pages, which borrows where they go, as one that owns it.
struct PagesWriter(TrackedWrite<Pages>);

impl PageWriter for PagesWriter {
    fn write_page(&mut self, page: CompressedPage) -> ParquetResult<PageWriteSpec> {
        SerializedPageWriter::new(&mut self.0).write_page(page)
    }

    fn close(&mut self) -> ParquetResult<()> {
        SerializedPageWriter::new(&mut self.0).close()
    }
}
