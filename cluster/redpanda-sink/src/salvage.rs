//! Writes what can be written of rows among which the database refuses some, and finds those out.
//!
//! A failed COPY names the row it failed at. So the rows are tried from there on until the rest is accepted, which goes
//! through every row once and runs the table's triggers only for what stays; then those before, without the refused
//! ones, are written in one statement. What a COPY names is never believed unseen: a row is refused only when it
//! is refused alone. Where COPY cannot tell (a row is there already, another language), parts are halved instead.
//!
//! Never commits, and never decides what a failure that is not a row's own means: the caller tries again.

use sqlx::{Connection, PgConnection};

use crate::bisect::Bisect;
use crate::classify::{Poison, Reason, Row, Source};
use crate::{copy, table};

/// What became of the rows.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Rows that were new.
    pub inserted: u64,
    /// Places of those the database refuses, with what it said.
    pub refused: Vec<(usize, Poison)>,
}

/// Inserts `rows`, all of `source`, but for those the database refuses. `failure` is what a COPY of rows met before, these or
/// those of another table. The caller owns the transaction.
pub async fn insert(
    transaction: &mut PgConnection,
    source: Source,
    rows: &[&Row],
    failure: &sqlx::Error,
) -> sqlx::Result<Salvaged> {
    let mut salvaged = Salvaged::default();
    let mut tried = 0;
    let mut known = row_at_fault(failure, source, rows.len());
    while tried < rows.len() {
        let at = match known.take() {
            Some(at) => at,
            None => match copy_within(transaction, source, &rows[tried..]).await? {
                Ok(()) => {
                    salvaged.inserted += (rows.len() - tried) as u64;
                    break;
                }
                Err(error) => match row_at_fault(&error, source, rows.len() - tried) {
                    Some(row) => tried + row,
                    None => return insert_halving(transaction, source, rows).await,
                },
            },
        };
        match insert_within(transaction, source, &rows[at..=at]).await? {
            Err(error) => salvaged
                .refused
                .push((at, Poison::new(Reason::RefusedByDatabase, error))),
            // It was another row's fault; this one is written now, and is left alone when it comes again.
            Ok(inserted) => {
                let mut halved = insert_halving(transaction, source, rows).await?;
                halved.inserted += inserted;
                return Ok(halved);
            }
        }
        tried = at + 1;
    }
    let mut before: Vec<&Row> = rows[..tried].to_vec();
    // From the end, so that places stay right.
    for (at, _) in salvaged.refused.iter().rev() {
        before.remove(*at);
    }
    if before.is_empty() {
        return Ok(salvaged);
    }
    match copy_within(transaction, source, &before).await? {
        Ok(()) => salvaged.inserted += before.len() as u64,
        // COPY checks keys when it has gathered many rows, so a fault before the first may have gone unseen.
        Err(_) => {
            let halved = insert_halving(transaction, source, rows).await?;
            return Ok(Salvaged {
                inserted: salvaged.inserted + halved.inserted,
                refused: halved.refused,
            });
        }
    }
    Ok(salvaged)
}

/// What is refused is halved until the rows at fault are known.
async fn insert_halving(
    transaction: &mut PgConnection,
    source: Source,
    rows: &[&Row],
) -> sqlx::Result<Salvaged> {
    let mut salvaged = Salvaged::default();
    let mut bisect = Bisect::new(rows.len());
    while let Some(range) = bisect.next() {
        match insert_within(transaction, source, &rows[range.clone()]).await? {
            Ok(inserted) => salvaged.inserted += inserted,
            Err(error) => {
                if let Some(at) = bisect.refused(range) {
                    let poison = Poison::new(Reason::RefusedByDatabase, error);
                    salvaged.refused.push((at, poison));
                }
            }
        }
    }
    Ok(salvaged)
}

/// COPY within a savepoint. The inner error is the rows' own, and nothing is written then.
async fn copy_within(
    transaction: &mut PgConnection,
    source: Source,
    rows: &[&Row],
) -> sqlx::Result<sqlx::Result<()>> {
    let mut savepoint = transaction.begin().await?;
    match copy::insert(&mut savepoint, source, rows).await {
        Ok(()) => savepoint.commit().await.map(Ok),
        Err(error) if refuses_rows(&error) => savepoint.rollback().await.map(|()| Err(error)),
        Err(error) => Err(error),
    }
}

/// The same with the insert that leaves rows alone that are there already; answers how many were new.
async fn insert_within(
    transaction: &mut PgConnection,
    source: Source,
    rows: &[&Row],
) -> sqlx::Result<sqlx::Result<u64>> {
    let mut savepoint = transaction.begin().await?;
    match table::insert(&mut savepoint, source, rows).await {
        Ok(inserted) => savepoint.commit().await.map(|()| Ok(inserted)),
        Err(error) if refuses_rows(&error) => savepoint.rollback().await.map(|()| Err(error)),
        Err(error) => Err(error),
    }
}

/// The place of the row that a failed COPY of `count` rows names, where it can be believed.
fn row_at_fault(error: &sqlx::Error, source: Source, count: usize) -> Option<usize> {
    let named = row_named_by(error, source.table())?;
    (named < count && !is_duplicate(error)).then_some(named)
}

/// The place of the row at which a COPY into `table` failed, from 0. PostgreSQL's context of the error begins with
/// "COPY energy_consumption, line 17"; the word before the number depends on the server's language.
fn row_named_by(error: &sqlx::Error, table: &str) -> Option<usize> {
    let error = error.as_database_error()?;
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    row_named_in(error.r#where()?, table)
}

fn row_named_in(context: &str, table: &str) -> Option<usize> {
    let rest = context.lines().find_map(|line| {
        line.strip_prefix("COPY ")?
            .strip_prefix(table)?
            .strip_prefix(", ")
    })?;
    let digits = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = digits
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse::<usize>().ok()?.checked_sub(1)
}

/// True when a row is there already.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation())
}

/// True when the database refuses the rows themselves, so that trying again cannot help; everything else is a
/// matter of time or of an operator, and no record may be lost to it.
pub fn refuses_rows(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code_refuses_rows(&code)),
        // A value the driver cannot put on the wire.
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

/// By SQLSTATE: data exceptions, violated constraints, program limits (an index row that is too long), check
/// options, and an exception raised by a trigger.
fn code_refuses_rows(code: &str) -> bool {
    ["22", "23", "54", "44"]
        .iter()
        .any(|class| code.starts_with(class))
        || code == "P0001"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fault_of_a_row_makes_a_dead_letter() {
        for code in [
            "22003", "22021", "22P05", "23502", "23505", "23514", "54000", "44000", "P0001",
        ] {
            assert!(code_refuses_rows(code), "{code}");
        }
        for code in [
            "08006", "25006", "25P02", "28P01", "3D000", "40001", "40P01", "42501", "42P01", "42703",
            "53100", "53200", "53300", "55P03", "57014", "57P01", "57P03", "58030", "XX000", "XX001",
        ] {
            assert!(!code_refuses_rows(code), "{code}");
        }
        assert!(!refuses_rows(&sqlx::Error::PoolTimedOut));
        assert!(!refuses_rows(&sqlx::Error::Io(std::io::Error::other("cut"))));
    }

    #[test]
    fn the_row_at_fault_is_in_the_context() {
        for (context, want) in [
            ("COPY plug_status, line 1", Some(0)),
            ("COPY plug_status, line 250, column power_w", Some(249)),
            ("SQL statement x\nCOPY plug_status, Zeile 3: \"4\"", Some(2)),
            ("COPY plug_status, line 0", None),
            ("COPY plug_status_2, line 1", None),
            ("COPY plug_status", None),
            ("PL/pgSQL function f() line 7 at RAISE", None),
            ("", None),
        ] {
            assert_eq!(row_named_in(context, "plug_status"), want, "{context}");
        }
    }
}
