//! Columns: name, type, meaning and value of each in one place, and how they are stored in Parquet.

use bytes::Bytes;
use parquet::{
    basic::{LogicalType, Repetition, TimeUnit, Type as Physical},
    column::writer::{ColumnWriter, ColumnWriterImpl},
    data_type::{ByteArray, DataType as ParquetType},
    schema::types::{Type, TypePtr},
};

use super::{about::About, format::ExportError};

/// A row, and what it refers to.
pub(super) struct Row<'a, T> {
    pub(super) it: &'a T,
    pub(super) about: &'a About,
}

/// How a value is found; `None` is what is not known.
type Get<T, V> = Box<dyn Fn(&Row<'_, T>) -> Option<V>>;

/// How text is found; `false` where there is none.
type Put<T> = Box<dyn Fn(&Row<'_, T>, &mut String) -> bool>;

/// A column of rows of `T`.
pub(super) struct Column<T> {
    name: &'static str,
    /// What it means, for the documentation.
    says: &'static str,
    cell: Cell<T>,
}

/// Of which type it is, and how its value is found.
enum Cell<T> {
    U16(Get<T, u16>),
    U32(Get<T, u32>),
    /// A duration in nanoseconds, or a count.
    I64(Get<T, u64>),
    /// A number that needs more than the 53 bits of a double: text in JSON.
    Wide(Get<T, u64>),
    /// Nanoseconds since 1970; microseconds in Parquet, which all engines read as a time.
    Time(Get<T, i64>),
    Bool(Get<T, bool>),
    /// One of few words.
    Word(Get<T, &'static str>),
    /// Text, appended; `false` where there is none.
    Text(Put<T>),
}

macro_rules! constructors {
    ($($new:ident $variant:ident $value:ty, $what:literal;)*) => {
        impl<T> Column<T> {
            $(
                #[doc = concat!("A column of ", $what, ".")]
                pub(super) fn $new(
                    name: &'static str,
                    says: &'static str,
                    get: impl Fn(&Row<'_, T>) -> Option<$value> + 'static,
                ) -> Self {
                    Self { name, says, cell: Cell::$variant(Box::new(get)) }
                }
            )*
        }
    };
}

impl<T> Column<T> {
    /// A column of text, which `put` appends; `false` where there is none.
    pub(super) fn text(
        name: &'static str,
        says: &'static str,
        put: impl Fn(&Row<'_, T>, &mut String) -> bool + 'static,
    ) -> Self {
        Self { name, says, cell: Cell::Text(Box::new(put)) }
    }

    /// Its value in `row`; text goes to `text`, which is empty.
    pub(super) fn value<'t>(&self, row: &Row<'_, T>, text: &'t mut String) -> Option<Value<'t>> {
        self.cell.value(row, text)
    }

    /// Whether its numbers are near to each other from row to row.
    pub(super) fn grows(&self) -> bool {
        matches!(self.cell, Cell::I64(_) | Cell::Wide(_) | Cell::Time(_))
    }

    /// Appends its values in `rows` to its column chunk.
    pub(super) fn append(
        &self,
        rows: &[Row<'_, T>],
        chunk: &mut ColumnWriter<'_>,
    ) -> Result<(), ExportError> {
        self.cell.append(rows, chunk)
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

constructors! {
    u16 U16 u16, "small numbers";
    u32 U32 u32, "numbers";
    i64 I64 u64, "durations and counts";
    wide Wide u64, "numbers of 64 bits";
    time Time i64, "moments";
    bool Bool bool, "what is or is not";
    word Word &'static str, "words";
}

/// A value for the formats that are text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    /// One that a double may not hold.
    Wide(u64),
    /// Nanoseconds since 1970.
    Time(i64),
    Bool(bool),
    Text(&'a str),
}

/// A column as it is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnDoc {
    /// What it is called.
    pub name: &'static str,
    /// Its type, in the words of Parquet.
    pub kind: &'static str,
    /// What it means.
    pub says: &'static str,
}

/// What `columns` are, for the documentation.
pub(super) fn docs<T>(columns: &[Column<T>]) -> Vec<ColumnDoc> {
    columns
        .iter()
        .map(|column| ColumnDoc { name: column.name, kind: column.cell.kind(), says: column.says })
        .collect()
}

impl<T> Cell<T> {
    fn kind(&self) -> &'static str {
        match self {
            Self::U16(_) => "uint16",
            Self::U32(_) => "uint32",
            Self::I64(_) | Self::Wide(_) => "int64",
            Self::Time(_) => "timestamp (µs, UTC)",
            Self::Bool(_) => "bool",
            Self::Word(_) | Self::Text(_) => "string",
        }
    }

    /// Its type in the file: how it is stored, and what that means.
    fn stored(&self) -> (Physical, Option<LogicalType>) {
        match self {
            Self::U16(_) => (Physical::INT32, Some(LogicalType::integer(16, false))),
            Self::U32(_) => (Physical::INT32, Some(LogicalType::integer(32, false))),
            Self::I64(_) | Self::Wide(_) => (Physical::INT64, None),
            // Not in nanoseconds, which Spark refuses.
            Self::Time(_) => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
            }
            Self::Bool(_) => (Physical::BOOLEAN, None),
            Self::Word(_) | Self::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        }
    }

    /// The value in `row`; text goes to `text`, which is empty.
    fn value<'t>(&self, row: &Row<'_, T>, text: &'t mut String) -> Option<Value<'t>> {
        Some(match self {
            Self::U16(get) => Value::Number(get(row)?.into()),
            Self::U32(get) => Value::Number(get(row)?.into()),
            Self::I64(get) => Value::Number(get(row)?),
            Self::Wide(get) => Value::Wide(get(row)?),
            Self::Time(get) => Value::Time(get(row)?),
            Self::Bool(get) => Value::Bool(get(row)?),
            Self::Word(get) => Value::Text(get(row)?),
            Self::Text(put) => return put(row, text).then_some(Value::Text(text)),
        })
    }

    /// Appends its values in `rows` to a column chunk of its type.
    fn append(&self, rows: &[Row<'_, T>], chunk: &mut ColumnWriter<'_>) -> Result<(), ExportError> {
        let rows = rows.iter();
        match (self, chunk) {
            (Self::U16(get), ColumnWriter::Int32ColumnWriter(chunk)) => {
                append(chunk, rows.map(|row| get(row).map(i32::from)))
            }
            (Self::U32(get), ColumnWriter::Int32ColumnWriter(chunk)) => {
                append(chunk, rows.map(|row| get(row).map(u32::cast_signed)))
            }
            (Self::I64(get) | Self::Wide(get), ColumnWriter::Int64ColumnWriter(chunk)) => {
                let signed = |n| i64::try_from(n).unwrap_or(i64::MAX);
                append(chunk, rows.map(|row| get(row).map(signed)))
            }
            (Self::Time(get), ColumnWriter::Int64ColumnWriter(chunk)) => {
                append(chunk, rows.map(|row| get(row).map(|ns| ns.div_euclid(1000))))
            }
            (Self::Bool(get), ColumnWriter::BoolColumnWriter(chunk)) => {
                append(chunk, rows.map(get))
            }
            (Self::Word(get), ColumnWriter::ByteArrayColumnWriter(chunk)) => {
                let word = |word: &'static str| Bytes::from_static(word.as_bytes()).into();
                append(chunk, rows.map(|row| get(row).map(word)))
            }
            (Self::Text(put), ColumnWriter::ByteArrayColumnWriter(chunk)) => {
                // A text is often that of the row before, which is then shared. Others are
                // allocated one by one: a dictionary may keep any of them for long.
                let (mut text, mut last) = (String::new(), ByteArray::from(""));
                append(
                    chunk,
                    rows.map(|row| {
                        text.clear();
                        put(row, &mut text).then(|| {
                            if last.data() != text.as_bytes() {
                                last = ByteArray::from(text.as_str());
                            }
                            last.clone()
                        })
                    }),
                )
            }
            _ => Err(ExportError("a column chunk has another type than its column".to_owned())),
        }
    }
}

/// Appends values to a column chunk; `None` is null.
fn append<D: ParquetType>(
    chunk: &mut ColumnWriterImpl<'_, D>,
    values: impl ExactSizeIterator<Item = Option<D::T>>,
) -> Result<(), ExportError> {
    let mut there = Vec::with_capacity(values.len());
    let levels: Vec<i16> = values
        .map(|value| {
            let level = i16::from(value.is_some());
            there.extend(value);
            level
        })
        .collect();
    chunk.write_batch(&there, Some(&levels), None)?;
    Ok(())
}

/// The schema of `columns`.
pub(super) fn schema<T>(columns: &[Column<T>]) -> Result<TypePtr, ExportError> {
    let field = |column: &Column<T>| {
        let (physical, logical) = column.cell.stored();
        Type::primitive_type_builder(column.name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
            .map(TypePtr::from)
    };
    let fields = columns.iter().map(field).collect::<Result<_, _>>()?;
    Ok(Type::group_type_builder("schema").with_fields(fields).build()?.into())
}
