//! Writes what can be written of rows among which the database refuses some, and finds those out.
//!
//! The rows go into the temporary table of `copy`, and one block of PL/pgSQL inserts them from there, part by part. When a part is
//! refused, the row it had come to is tried alone, noted, and the part is tried again without it: nothing goes back and
//! forth between sink and database for a refused row. Which row a part had come to is told by a sequence, whose value a
//! rollback leaves alone; it is never believed unseen, for a row is refused only when it is refused alone. Where the row
//! reached is not the one at fault (a trigger that looks at all rows of a statement), parts are halved by statements instead.
//!
//! Never commits, and never decides what a failure that is not a row's own means: the caller tries again.

use std::sync::LazyLock;

use sqlx::{Connection, PgConnection};

use crate::bisect::Bisect;
use crate::classify::{Poison, Reason, Row, Source};
use crate::{copy, table};

/// Rows of a part. A refused row costs some two thirds of one, an accepted part a statement.
const PART_ROWS: usize = 100;
/// The block's own SQLSTATE: the row that was reached is accepted alone.
const NOT_AT_FAULT: &str = "SK001";

/// What became of the rows.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Rows that were new.
    pub inserted: u64,
    /// Places of those the database refuses, with what it said.
    pub refused: Vec<(usize, Poison)>,
}

/// The statements of one table.
struct Statements {
    /// The block: notes what is refused in the temporary table and how many rows were new in `sink.inserted`.
    insert: String,
    refused: String,
}

fn statements(source: Source) -> &'static Statements {
    static STATEMENTS: LazyLock<[Statements; 5]> = LazyLock::new(|| Source::ALL.map(make_statements));
    &STATEMENTS[source as usize]
}

fn make_statements(source: Source) -> Statements {
    let staging = copy::staging(source);
    let names = table::names(&table::columns(source, &[]));
    let into = format!("insert into {} ({names}) select {names} from", source.table());
    let once = format!("on conflict ({}) do nothing", source.primary_key());
    // The conditions are those of `code_refuses_rows`. "offset 0" keeps the sort below the call of setval.
    let insert = format!(
        "do $block$
        declare
            at bigint := 0;
            total bigint;
            new bigint;
            inserted bigint := 0;
            reached bigint;
        begin
            select count(*) into total from {staging};
            while at < total loop
                perform setval('pg_temp.reached', at + 1);
                begin
                    {into} (
                        select * from {staging}
                        where place >= at and place < at + {PART_ROWS} and refused is null
                        order by place offset 0
                    ) part where setval('pg_temp.reached', place + 1) > 0 {once};
                    get diagnostics new = row_count;
                    inserted := inserted + new;
                    at := at + {PART_ROWS};
                exception when {REFUSALS} then
                    reached := currval('pg_temp.reached') - 1;
                    begin
                        {into} {staging} where place = reached {once};
                        raise exception 'accepted alone' using errcode = '{NOT_AT_FAULT}';
                    exception when {REFUSALS} then
                        update {staging} set refused = sqlerrm where place = reached;
                    end;
                end;
            end loop;
            perform set_config('sink.inserted', inserted::text, true);
        end $block$"
    );
    Statements {
        insert,
        refused: format!("select place, refused from {staging} where refused is not null order by place"),
    }
}

/// Inserts `rows`, all of `source`, but for those the database refuses. The caller owns the transaction; call it once for a
/// table within one.
pub async fn insert(transaction: &mut PgConnection, source: Source, rows: &[&Row]) -> sqlx::Result<Salvaged> {
    let mut savepoint = transaction.begin().await?;
    match insert_by_parts(&mut savepoint, source, rows).await {
        Ok(salvaged) => {
            savepoint.commit().await?;
            return Ok(salvaged);
        }
        Err(error) if refuses_rows(&error) || is_not_at_fault(&error) => savepoint.rollback().await?,
        Err(error) => return Err(error),
    }
    insert_halving(transaction, source, rows).await
}

async fn insert_by_parts(
    savepoint: &mut PgConnection,
    source: Source,
    rows: &[&Row],
) -> sqlx::Result<Salvaged> {
    let statements = statements(source);
    sqlx::raw_sql("create temporary sequence if not exists pg_temp.reached")
        .execute(&mut *savepoint)
        .await?;
    copy::stage(savepoint, source, rows).await?;
    sqlx::raw_sql(statements.insert.as_str())
        .execute(&mut *savepoint)
        .await?;
    let inserted: i64 = sqlx::query_scalar("select current_setting('sink.inserted')::bigint")
        .fetch_one(&mut *savepoint)
        .await?;
    let refused: Vec<(i64, String)> = sqlx::query_as(statements.refused.as_str())
        .fetch_all(savepoint)
        .await?;
    Ok(Salvaged {
        inserted: inserted.unsigned_abs(),
        refused: refused
            .into_iter()
            .map(|(place, said)| {
                let place = usize::try_from(place).expect("places are counted from 0");
                (place, Poison::new(Reason::RefusedByDatabase, said))
            })
            .collect(),
    })
}

fn is_not_at_fault(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == NOT_AT_FAULT)
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

/// The insert of `table` within a savepoint. The inner error is the rows' own, and nothing is written then.
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

/// What [`code_refuses_rows`] lets through, as PL/pgSQL names it.
const REFUSALS: &str = "data_exception or integrity_constraint_violation or program_limit_exceeded \
     or with_check_option_violation or raise_exception";

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
}
