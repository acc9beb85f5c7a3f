//! The five tables: which field goes into which column, and the statement that inserts many rows at once.
//!
//! The columns of a reading have the names of its fields; a field added to the contract does not compile until it
//! is listed here. Knows nothing of transactions, retries or connections.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use telemetry::{Energy, Event, Heatpump, HeatpumpSettings, Plug, Reading, Record, Temperature};

use crate::classify::{Row, Source};

/// The values of one column, a row each. The variant decides the SQL type.
#[derive(Debug, PartialEq)]
pub enum Column<'a> {
    /// `double precision`
    Number(Vec<Option<f64>>),
    /// `bigint`
    Whole(Vec<Option<i64>>),
    /// `boolean`
    Flag(Vec<Option<bool>>),
    /// `text`
    Text(Vec<Option<&'a str>>),
    /// `timestamptz`
    Time(Vec<DateTime<Utc>>),
    /// `jsonb`
    Json(Vec<serde_json::Value>),
}

impl Column<'_> {
    /// The type in SQL.
    pub const fn sql_type(&self) -> &'static str {
        match self {
            Column::Number(_) => "double precision",
            Column::Whole(_) => "bigint",
            Column::Flag(_) => "boolean",
            Column::Text(_) => "text",
            Column::Time(_) => "timestamptz",
            Column::Json(_) => "jsonb",
        }
    }
}

/// Named columns in the order of the insert statement.
pub type Columns<'a> = Vec<(&'static str, Column<'a>)>;

impl Source {
    /// The table.
    pub const fn table(self) -> &'static str {
        match self {
            Source::Energy => "energy_consumption",
            Source::Temperature => "temperature_sensors",
            Source::Heatpump => "heatpump_status",
            Source::Plug => "plug_status",
            Source::Events => "events",
        }
    }

    /// The columns of the primary key, which make a row one row.
    pub const fn primary_key(self) -> &'static str {
        match self {
            Source::Events => "id, time",
            Source::Energy | Source::Temperature | Source::Heatpump | Source::Plug => "device_id, time, id",
        }
    }

    /// The insert statement: one array parameter a column, rows already there are left alone.
    pub fn insert_statement(self) -> &'static str {
        static STATEMENTS: LazyLock<[String; 5]> = LazyLock::new(|| Source::ALL.map(statement));
        &STATEMENTS[self as usize]
    }
}

fn statement(source: Source) -> String {
    let columns = columns(source, &[]);
    let parameters: Vec<String> = (1..)
        .zip(&columns)
        .map(|(number, (_, column))| format!("${number}::{}[]", column.sql_type()))
        .collect();
    format!(
        "insert into {table} ({names}) select * from unnest({parameters}) on conflict ({key}) do nothing",
        table = source.table(),
        names = names(&columns),
        parameters = parameters.join(", "),
        key = source.primary_key(),
    )
}

/// The names of the columns as a list for SQL.
pub fn names(columns: &Columns<'_>) -> String {
    // Quoted: a plug's `on` is a word of SQL's own.
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    names.join(", ")
}

/// Inserts `rows`, all of `source`. Answers how many were new. The caller owns the transaction.
pub async fn insert(connection: &mut PgConnection, source: Source, rows: &[&Row]) -> sqlx::Result<u64> {
    let mut query = sqlx::query(source.insert_statement());
    for (_, column) in columns(source, rows) {
        query = match column {
            Column::Number(values) => query.bind(values),
            Column::Whole(values) => query.bind(values),
            Column::Flag(values) => query.bind(values),
            Column::Text(values) => query.bind(values),
            Column::Time(values) => query.bind(values),
            Column::Json(values) => query.bind(values),
        };
    }
    Ok(query.execute(connection).await?.rows_affected())
}

/// The rows as columns. Panics when a row is not of `source`: classification made sure of that.
pub fn columns<'a>(source: Source, rows: &[&'a Row]) -> Columns<'a> {
    const FITS: &str = "classify lets only the kind of the topic through";
    if source == Source::Events {
        let rows: Vec<&Event> = rows
            .iter()
            .map(|row| match row {
                Row::Event(event) => event,
                Row::Reading(_) => panic!("{FITS}"),
            })
            .collect();
        return event_columns(&rows);
    }
    let records: Vec<&'a Record> = rows
        .iter()
        .map(|row| match row {
            Row::Reading(record) => record,
            Row::Event(_) => panic!("{FITS}"),
        })
        .collect();
    macro_rules! readings {
        ($variant:ident) => {
            records
                .iter()
                .map(|record| match &record.reading {
                    Reading::$variant(reading) => reading,
                    _ => panic!("{FITS}"),
                })
                .collect::<Vec<_>>()
        };
    }
    let mut all = common_columns(&records);
    all.extend(match source {
        Source::Energy => energy_columns(&readings!(Energy)),
        Source::Temperature => temperature_columns(&readings!(Temperature)),
        Source::Heatpump => {
            let readings: Vec<&'a Heatpump> = readings!(Heatpump)
                .into_iter()
                .map(|reading| &**reading)
                .collect();
            heatpump_columns(&readings)
        }
        Source::Plug => plug_columns(&readings!(Plug)),
        Source::Events => unreachable!("answered above"),
    });
    all
}

fn common_columns<'a>(records: &[&'a Record]) -> Columns<'a> {
    let text = |field: fn(&'a Record) -> Option<&'a str>| {
        Column::Text(records.iter().map(|record| field(record)).collect())
    };
    vec![
        ("device_id", text(|record| Some(record.device_id.as_str()))),
        (
            "time",
            Column::Time(records.iter().map(|record| record.time).collect()),
        ),
        ("id", text(|record| Some(&record.id))),
        ("agent", text(|record| Some(&record.agent))),
        ("clock", text(|record| Some(record.clock.as_str()))),
        ("location", text(|record| record.location.as_deref())),
    ]
}

fn event_columns<'a>(events: &[&'a Event]) -> Columns<'a> {
    let text = |field: fn(&'a Event) -> Option<&'a str>| {
        Column::Text(events.iter().map(|event| field(event)).collect())
    };
    vec![
        (
            "time",
            Column::Time(events.iter().map(|event| event.time).collect()),
        ),
        ("id", text(|event| Some(&event.id))),
        ("type", text(|event| Some(event.body.kind()))),
        ("agent", text(|event| event.agent.as_deref())),
        (
            "device_id",
            text(|event| event.device_id.as_ref().map(|id| id.as_str())),
        ),
        (
            "details",
            Column::Json(events.iter().map(|event| details(event)).collect()),
        ),
    ]
}

/// The body of an event without its type, which has a column of its own.
fn details(event: &Event) -> serde_json::Value {
    let mut body = serde_json::to_value(&event.body).expect("an event has only text keys");
    if let Some(fields) = body.as_object_mut() {
        fields.remove("type");
    }
    body
}

/// One value of a reading for a column of the named variant.
macro_rules! cell {
    (Text, $reading:ident, $field:ident) => {
        $reading.$field.as_deref()
    };
    ($variant:ident, $reading:ident, $field:ident) => {
        $reading.$field
    };
}

/// A function from readings to columns. The pattern without `..` makes a forgotten field an error of compilation.
macro_rules! columns_of {
    ($function:ident, $reading:ident { $($field:ident: $variant:ident,)* } without { $($other:ident)? }) => {
        fn $function<'a>(readings: &[&'a $reading]) -> Columns<'a> {
            const _: fn($reading) = |$reading { $($field: _,)* $($other: _,)? }| ();
            let columns: Columns<'a> = vec![$((
                stringify!($field),
                Column::$variant(readings.iter().map(|reading| cell!($variant, reading, $field)).collect()),
            ),)*];
            $(let columns = with_settings(columns, readings.iter().map(|reading| reading.$other.as_ref()));)?
            columns
        }
    };
}

columns_of!(energy_columns, Energy {
    power_w: Number,
    power_l1_w: Number,
    power_l2_w: Number,
    power_l3_w: Number,
    export_power_w: Number,
    energy_wh: Number,
    export_energy_wh: Number,
    voltage_l1_v: Number,
    voltage_l2_v: Number,
    voltage_l3_v: Number,
    current_l1_a: Number,
    current_l2_a: Number,
    current_l3_a: Number,
    power_factor: Number,
    meter_id: Text,
    meter_type: Text,
    rssi_dbm: Number,
} without {});

columns_of!(temperature_columns, Temperature {
    temperature_c: Number,
    humidity_percent: Number,
    battery_volts: Number,
    battery_percent: Number,
    external_power: Flag,
    rssi_dbm: Number,
    uptime_seconds: Number,
    wake_period_seconds: Number,
    wind_speed_ms: Number,
    pressure_hpa: Number,
} without {});

columns_of!(heatpump_columns, Heatpump {
    outdoor_c: Number,
    indoor_c: Number,
    supply_c: Number,
    return_c: Number,
    hot_water_c: Number,
    brine_in_c: Number,
    brine_out_c: Number,
    integral: Number,
    flow_pump_percent: Number,
    compressor_on: Flag,
    brine_pump_on: Flag,
    flow_pump_on: Flag,
    hot_water_on: Flag,
    aux_3kw_on: Flag,
    aux_6kw_on: Flag,
    compressor_hours: Number,
    hot_water_hours: Number,
    aux_3kw_hours: Number,
    aux_6kw_hours: Number,
} without { settings });

columns_of!(plug_columns, Plug {
    on: Flag,
    power_w: Number,
    energy_wh: Number,
    voltage_v: Number,
    current_a: Number,
    rssi_dbm: Number,
    uptime_seconds: Number,
} without {});

/// Adds the settings of a heat pump; a pump that reported none has nulls.
fn with_settings<'a>(
    mut columns: Columns<'a>,
    settings: impl Iterator<Item = Option<&'a HeatpumpSettings>>,
) -> Columns<'a> {
    let settings: Vec<Option<&HeatpumpSettings>> = settings.collect();
    macro_rules! settings_columns {
        ($($field:ident)*) => {
            const _: fn(HeatpumpSettings) = |HeatpumpSettings { $($field: _,)* }| ();
            $(columns.push((
                concat!("settings_", stringify!($field)),
                Column::Whole(settings.iter().map(|settings| settings.and_then(|s| s.$field)).collect()),
            ));)*
        };
    }
    settings_columns!(indoor_target_c mode curve curve_min curve_max curve_plus_5 curve_zero curve_minus_5 heat_stop_c integral);
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Row {
        Row::Reading(Record::from_json(text.as_bytes()).unwrap())
    }

    /// Every field of a sample's `reading` arrives in the column of its name.
    #[test]
    fn columns_carry_the_fields_of_their_names() {
        for (source, text) in [
            (
                Source::Energy,
                include_str!("../../telemetry/samples/energy.json"),
            ),
            (
                Source::Temperature,
                include_str!("../../telemetry/samples/temperature.json"),
            ),
            (
                Source::Heatpump,
                include_str!("../../telemetry/samples/heatpump.json"),
            ),
            (Source::Plug, include_str!("../../telemetry/samples/plug.json")),
        ] {
            let row = record(text);
            let columns = columns(source, &[&row]);
            let sample: serde_json::Value = serde_json::from_str(text).unwrap();
            let mut fields = sample["reading"].as_object().unwrap().clone();
            if let Some(serde_json::Value::Object(settings)) = fields.remove("settings") {
                fields.extend(
                    settings
                        .into_iter()
                        .map(|(name, value)| (format!("settings_{name}"), value)),
                );
            }
            for (name, want) in fields {
                let (_, column) = columns.iter().find(|(column, _)| *column == name).expect(&name);
                let got = match column {
                    Column::Number(values) => serde_json::json!(values[0]),
                    Column::Whole(values) => serde_json::json!(values[0]),
                    Column::Flag(values) => serde_json::json!(values[0]),
                    Column::Text(values) => serde_json::json!(values[0]),
                    Column::Time(_) | Column::Json(_) => panic!("{name} is no field of a reading"),
                };
                assert_eq!(got, want, "{name}");
            }
        }
    }

    #[test]
    fn a_pump_without_settings_has_nulls() {
        let row = record(
            r#"{"id":"p0/1/1","agent":"p0","device_id":"ivt","time":"2026-01-01T08:00:00Z","clock":"synced",
                "kind":"heatpump","reading":{"indoor_c":21.0}}"#,
        );
        let columns = columns(Source::Heatpump, &[&row]);
        assert!(columns.contains(&("settings_mode", Column::Whole(vec![None]))));
        assert!(columns.contains(&("indoor_c", Column::Number(vec![Some(21.0)]))));
        assert!(columns.contains(&("location", Column::Text(vec![None]))));
    }

    #[test]
    fn events_keep_their_body_as_details() {
        let event: Event = serde_json::from_value(serde_json::json!({"id": "p0/1/7", "agent": "p0",
            "device_id": "ivt", "time": "2026-01-01T08:00:00Z", "type": "device_online", "online": true}))
        .unwrap();
        let row = Row::Event(event);
        let columns = columns(Source::Events, &[&row]);
        assert!(columns.contains(&("type", Column::Text(vec![Some("device_online")]))));
        assert!(columns.contains(&("details", Column::Json(vec![serde_json::json!({"online": true})]))));
    }

    #[test]
    fn statements_name_table_columns_and_key() {
        assert_eq!(
            Source::Events.insert_statement(),
            "insert into events (\"time\", \"id\", \"type\", \"agent\", \"device_id\", \"details\") \
             select * from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[]) \
             on conflict (id, time) do nothing"
        );
        assert!(
            Source::Plug
                .insert_statement()
                .ends_with("on conflict (device_id, time, id) do nothing")
        );
        for source in Source::ALL {
            let parameters = columns(source, &[]).len();
            assert!(
                source.insert_statement().contains(&format!("${parameters}::")),
                "{source:?}"
            );
            assert!(
                !source
                    .insert_statement()
                    .contains(&format!("${}::", parameters + 1)),
                "{source:?}"
            );
        }
    }
}
