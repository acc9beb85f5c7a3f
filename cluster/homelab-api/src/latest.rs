//! The statement behind `latest`: the newest reading of each device, with each field as it was last reported.
//!
//! A device may send its values in several frames (a Shelly Pro 3EM sends powers in one and counters in another), so the
//! newest row alone would show half of them, each half in turn. A field that the newest row does not have is taken from the
//! 10 minutes before it, and is null when it was not reported in them.

/// `$1` of the statement is one device, or null for all. device_spans has one row a device; the newest reading comes from
/// the end of the index on (device_id, time), and what is older from the entries before it. A device that reports every
/// second has 600 rows in 10 minutes; more than 1,000 are not looked at.
macro_rules! latest_sql {
    ($kind:literal, $table:literal, [$first:literal $(, $field:literal)*]) => {
        concat!(
            "select n.device_id, n.time, n.clock, n.agent, n.location, r.* from device_spans as s
            cross join lateral (
                select device_id, time, clock, agent, location from ",
            $table,
            " where device_id = s.device_id order by time desc, id desc limit 1
            ) as n
            cross join lateral (
                select (array_agg(", $first, ") filter (where ", $first, " is not null))[1] as ", $first,
            $(", (array_agg(", $field, ") filter (where ", $field, " is not null))[1] as ", $field,)*
            " from (
                    select * from ",
            $table,
            " where device_id = s.device_id and time <= n.time and time > n.time - interval '10 minutes'
                    order by time desc, id desc limit 1000
                ) as newest_first
            ) as r
            where s.kind = '",
            $kind,
            "' and ($1::text is null or s.device_id = $1)
            order by n.device_id"
        )
    };
}

pub(crate) use latest_sql;
