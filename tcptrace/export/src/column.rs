//! Columns: name, type, meaning and value of each in one place, and arrays of them.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray, UInt16Array,
    UInt32Array, builder::StringDictionaryBuilder, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::{About, ExportError};
/// The time zone of all times.
const UTC: &str = "+00:00";

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
    /// A number that grows from row to row, or a duration in nanoseconds.
    I64(Get<T, u64>),
    /// Nanoseconds since 1970.
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
        matches!(self.cell, Cell::I64(_) | Cell::Time(_))
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

constructors! {
    u16 U16 u16, "small numbers";
    u32 U32 u32, "numbers";
    i64 I64 u64, "numbers that grow from row to row, or durations";
    time Time i64, "moments";
    bool Bool bool, "what is or is not";
    word Word &'static str, "words";
}

/// A value for the formats that are text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
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
            Self::I64(_) => "int64",
            Self::Time(_) => "timestamp (ns, UTC)",
            Self::Bool(_) => "bool",
            Self::Word(_) | Self::Text(_) => "string (dictionary)",
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::U16(_) => DataType::UInt16,
            Self::U32(_) => DataType::UInt32,
            Self::I64(_) => DataType::Int64,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Self::Bool(_) => DataType::Boolean,
            Self::Word(_) | Self::Text(_) => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
        }
    }

    /// The value in `row`; text goes to `text`, which is empty.
    fn value<'t>(&self, row: &Row<'_, T>, text: &'t mut String) -> Option<Value<'t>> {
        Some(match self {
            Self::U16(get) => Value::Number(get(row)?.into()),
            Self::U32(get) => Value::Number(get(row)?.into()),
            Self::I64(get) => Value::Number(get(row)?),
            Self::Time(get) => Value::Time(get(row)?),
            Self::Bool(get) => Value::Bool(get(row)?),
            Self::Word(get) => Value::Text(get(row)?),
            Self::Text(put) => return put(row, text).then_some(Value::Text(text)),
        })
    }

    fn array(&self, rows: &[Row<'_, T>]) -> Result<ArrayRef, ExportError> {
        let rows = rows.iter();
        Ok(match self {
            Self::U16(get) => Arc::new(rows.map(get).collect::<UInt16Array>()),
            Self::U32(get) => Arc::new(rows.map(get).collect::<UInt32Array>()),
            Self::I64(get) => {
                let signed = |row| get(row).map(|n| i64::try_from(n).unwrap_or(i64::MAX));
                Arc::new(rows.map(signed).collect::<Int64Array>())
            }
            Self::Time(get) => {
                Arc::new(rows.map(get).collect::<TimestampNanosecondArray>().with_timezone(UTC))
            }
            Self::Bool(get) => Arc::new(rows.map(get).collect::<BooleanArray>()),
            Self::Word(get) => {
                let mut words = StringDictionaryBuilder::<Int32Type>::new();
                for word in rows.map(get) {
                    words.append_option(word);
                }
                Arc::new(words.finish())
            }
            Self::Text(put) => {
                let (mut texts, mut text) =
                    (StringDictionaryBuilder::<Int32Type>::new(), String::new());
                for row in rows {
                    text.clear();
                    let there = put(row, &mut text);
                    texts.append_option(there.then_some(&text));
                }
                Arc::new(texts.finish())
            }
        })
    }
}

/// The schema of `columns`.
pub(super) fn schema<T>(columns: &[Column<T>]) -> Schema {
    let field = |column: &Column<T>| Field::new(column.name, column.cell.data_type(), true);
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

/// `rows` as columns.
pub(super) fn batch<T>(
    columns: &[Column<T>],
    rows: &[Row<'_, T>],
) -> Result<RecordBatch, ExportError> {
    let arrays = columns.iter().map(|column| column.cell.array(rows));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::new(schema(columns)), arrays)
        .map_err(|error| ExportError(error.to_string()))
}
