//! Parquet, as the Hub serves datasets.
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value};

use super::{Place, TableRow};

/// Reads rows of flat or nested columns.
pub(super) fn read(path: &Path, needed: usize, rows: &mut Vec<TableRow>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let broken = || format!("{}: not a Parquet file that can be read", path.display());
    let reader = SerializedFileReader::new(file).with_context(broken)?;
    let name: Arc<Path> = Arc::from(path);
    for (index, row) in reader.get_row_iter(None).with_context(broken)?.enumerate() {
        if rows.len() >= needed {
            break;
        }
        let row = row.with_context(|| format!("{}, row {}: cannot be read", path.display(), index + 1))?;
        let fields = row.into_columns().into_iter().map(|(name, field)| (name, to_json(&field))).collect();
        rows.push(TableRow::new(fields, &name, Place::Row(index + 1)));
    }
    Ok(())
}

/// Types that no text dataset has (dates, decimals, bytes) become null, so that only reading such a column is an error.
fn to_json(field: &Field) -> Value {
    match field {
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Group(row) => {
            row.get_column_iter().map(|(name, field)| (name.clone(), to_json(field))).collect::<Map<_, _>>().into()
        }
        Field::ListInternal(list) => list.elements().iter().map(to_json).collect::<Vec<_>>().into(),
        _ => Value::Null,
    }
}
