//! Many rows at once: binary COPY into the table, or by way of a temporary table of the connection.
//!
//! COPY knows no `on conflict`: one row that is there already fails the whole statement, and none of its rows is
//! written. After a restart such rows are to be expected, and then they go into the temporary table, which has no key
//! and takes every row; the insert that follows has the same rule as that of `table`: rows that are there already are
//! left alone. That writes every row twice, so it is not the usual way. Never decides which way is taken.

use std::sync::LazyLock;

use chrono::{DateTime, TimeZone, Utc};
use sqlx::PgConnection;

use crate::classify::{Row, Source};
use crate::table::{self, Column, Columns};

/// From this many rows of one table on, COPY takes less time than an `unnest` insert.
pub const COPY_ROWS: usize = 1_000;
/// Rows that are encoded and sent together: as columns and on the wire they take some 400 kB beside the batch.
const CHUNK_ROWS: usize = 1_000;

/// The signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The number of fields that no row has.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// Length of a field that is null.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// The only version of the binary form of `jsonb`.
const JSONB_VERSION: u8 = 1;

/// The statements of one table.
struct Statements {
    copy: String,
    stage: Stage,
}

/// Those by way of the temporary table, which has a column more: the place of a row among those that were sent.
struct Stage {
    create: String,
    copy: String,
    insert: String,
}

fn statements(source: Source) -> &'static Statements {
    static STATEMENTS: LazyLock<[Statements; 5]> = LazyLock::new(|| Source::ALL.map(make_statements));
    &STATEMENTS[source as usize]
}

fn make_statements(source: Source) -> Statements {
    let columns = table::columns(source, &[]);
    let names = table::names(&columns);
    // "like" would need the right to read the whole table, which the sink does not have.
    let typed: Vec<String> = columns
        .iter()
        .map(|(name, column)| format!("\"{name}\" {}", column.sql_type()))
        .collect();
    let staging = staging(source);
    let stage = Stage {
        create: format!(
            "create temporary table if not exists {staging} (place bigint, refused text, {}) on commit delete rows",
            typed.join(", ")
        ),
        copy: format!("copy {staging} ({names}, place) from stdin (format binary)"),
        insert: format!(
            "insert into {table} ({names}) select {names} from {staging} on conflict ({key}) do nothing",
            table = source.table(),
            key = source.primary_key(),
        ),
    };
    Statements {
        copy: format!("copy {} ({names}) from stdin (format binary)", source.table()),
        stage,
    }
}

/// The temporary table of `source`.
pub fn staging(source: Source) -> String {
    format!("pg_temp.staged_{}", source.table())
}

/// Inserts `rows`, all of `source`, none of which may be there already. The caller owns the transaction.
pub async fn insert(connection: &mut PgConnection, source: Source, rows: &[&Row]) -> sqlx::Result<()> {
    send(connection, &statements(source).copy, rows, |_, chunk| {
        table::columns(source, chunk)
    })
    .await
}

/// The same for rows some of which may be there already. Answers how many were new.
pub async fn insert_staged(
    connection: &mut PgConnection,
    source: Source,
    rows: &[&Row],
) -> sqlx::Result<u64> {
    stage(connection, source, rows).await?;
    let insert = statements(source).stage.insert.as_str();
    Ok(sqlx::query(insert).execute(connection).await?.rows_affected())
}

/// Brings `rows`, all of `source`, into the temporary table, each with its place in `rows`. The table is empty again at the
/// end of the transaction; call it once for a table within one.
pub async fn stage(connection: &mut PgConnection, source: Source, rows: &[&Row]) -> sqlx::Result<()> {
    let stage = &statements(source).stage;
    sqlx::raw_sql(stage.create.as_str())
        .execute(&mut *connection)
        .await?;
    send(connection, &stage.copy, rows, |first, chunk| {
        let mut columns = table::columns(source, chunk);
        let places = (first as i64..).take(chunk.len()).map(Some);
        columns.push(("place", Column::Whole(places.collect())));
        columns
    })
    .await
}

/// Sends the rows by the COPY `statement`; `columns` makes those of a chunk, and is told the place of its first row.
async fn send<'a>(
    connection: &mut PgConnection,
    statement: &str,
    rows: &[&'a Row],
    columns: impl Fn(usize, &[&'a Row]) -> Columns<'a>,
) -> sqlx::Result<()> {
    let mut copy = connection.copy_in_raw(statement).await?;
    let mut wire = HEADER.to_vec();
    for (number, chunk) in rows.chunks(CHUNK_ROWS).enumerate() {
        encode(&columns(number * CHUNK_ROWS, chunk), chunk.len(), &mut wire);
        copy.send(wire.as_slice()).await?;
        wire.clear();
    }
    copy.send(TRAILER.as_slice()).await?;
    copy.finish().await.map(|_| ())
}

/// Appends the rows in the binary form of COPY: the number of fields, then each with its length, all big-endian.
fn encode(columns: &Columns<'_>, rows: usize, wire: &mut Vec<u8>) {
    let fields = i16::try_from(columns.len()).expect("a table has some thirty columns");
    for row in 0..rows {
        wire.extend(fields.to_be_bytes());
        for (_, column) in columns {
            match column {
                Column::Number(values) => field(wire, values[row].map(f64::to_be_bytes)),
                Column::Whole(values) => field(wire, values[row].map(i64::to_be_bytes)),
                Column::Flag(values) => field(wire, values[row].map(|value| [u8::from(value)])),
                Column::Text(values) => field(wire, values[row]),
                Column::Time(values) => field(wire, Some(microseconds(values[row]).to_be_bytes())),
                Column::Json(values) => {
                    let mut value = vec![JSONB_VERSION];
                    serde_json::to_writer(&mut value, &values[row]).expect("a value that was parsed");
                    field(wire, Some(value));
                }
            }
        }
    }
}

fn field(wire: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    match value {
        Some(value) => {
            let value = value.as_ref();
            let length = i32::try_from(value.len()).expect("a record has at most some megabytes");
            wire.extend(length.to_be_bytes());
            wire.extend(value);
        }
        None => wire.extend(NULL),
    }
}

/// PostgreSQL's time: microseconds since 2000, cut off as the driver does it for the other way in. It is part of the
/// key, so both ways must agree to the last digit.
fn microseconds(time: DateTime<Utc>) -> i64 {
    let epoch = Utc
        .with_ymd_and_hms(2000, 1, 1, 0, 0, 0)
        .single()
        .expect("a fixed, unambiguous date");
    time.signed_duration_since(epoch)
        .num_microseconds()
        .expect("classification lets only times near the present through")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_encoded_as_postgresql_reads_them() {
        let columns: Columns<'_> = vec![
            ("a", Column::Text(vec![Some("p\u{e9}"), None])),
            ("b", Column::Number(vec![Some(1.5), None])),
            ("c", Column::Whole(vec![Some(-2), None])),
            ("d", Column::Flag(vec![Some(true), None])),
            (
                "e",
                Column::Time(vec![
                    "2000-01-01T00:00:01.000002999Z".parse().unwrap(),
                    "1999-12-31T23:59:59Z".parse().unwrap(),
                ]),
            ),
            (
                "f",
                Column::Json(vec![serde_json::json!({"x": 1}), serde_json::json!(null)]),
            ),
        ];
        let mut wire = Vec::new();
        encode(&columns, 2, &mut wire);
        let mut want = Vec::new();
        want.extend([0, 6]);
        want.extend(b"\0\0\0\x03p\xc3\xa9");
        want.extend(b"\0\0\0\x08\x3f\xf8\0\0\0\0\0\0");
        want.extend(b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe");
        want.extend(b"\0\0\0\x01\x01");
        want.extend(b"\0\0\0\x08\0\0\0\0\0\x0f\x42\x42");
        want.extend(b"\0\0\0\x08\x01{\"x\":1}");
        want.extend([0, 6]);
        want.extend([0xff; 16]);
        want.extend(b"\0\0\0\x08\xff\xff\xff\xff\xff\xf0\xbd\xc0");
        want.extend(b"\0\0\0\x05\x01null");
        assert_eq!(wire, want);
        assert_eq!(HEADER.len(), 19);
    }

    #[test]
    fn statements_name_their_columns_and_the_key() {
        assert_eq!(
            statements(Source::Events).copy,
            "copy events (\"time\", \"id\", \"type\", \"agent\", \"device_id\", \"details\") from stdin (format binary)"
        );
        let events = &statements(Source::Events).stage;
        assert_eq!(
            events.create,
            "create temporary table if not exists pg_temp.staged_events (place bigint, refused text, \"time\" timestamptz, \
             \"id\" text, \"type\" text, \"agent\" text, \"device_id\" text, \"details\" jsonb) on commit delete rows"
        );
        assert_eq!(
            events.copy,
            "copy pg_temp.staged_events (\"time\", \"id\", \"type\", \"agent\", \"device_id\", \"details\", place) \
             from stdin (format binary)"
        );
        assert_eq!(
            events.insert,
            "insert into events (\"time\", \"id\", \"type\", \"agent\", \"device_id\", \"details\") select \
             \"time\", \"id\", \"type\", \"agent\", \"device_id\", \"details\" from pg_temp.staged_events \
             on conflict (id, time) do nothing"
        );
    }
}
