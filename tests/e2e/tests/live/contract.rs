//! docs/asyncapi.yaml is a valid document, and real messages of every type are what it says.

use std::collections::BTreeSet;

use jsonschema::Validator;

use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/asyncapi.yaml");
const ASYNCAPI: &str = include_str!("../../schemas/asyncapi-3.0.0.json");
/// What the issue of the live stream promises for the frames of real devices.
const FRAME_BYTES: usize = 1_024;

/// The document, with schemas by the name of the message.
struct Contract {
    document: Value,
}

impl Contract {
    fn read() -> Result<Contract> {
        let document: Value = serde_yaml_ng::from_str(DOCUMENT)?;
        Ok(Contract { document })
    }

    /// A message's schema. Every object is closed, so that a field nobody has written down is found; a client is told
    /// to ignore it, the document is not allowed to.
    fn schema(&self, message: &str) -> Result<Validator> {
        let mut whole = self.document["components"]["messages"][message]["payload"].clone();
        ensure!(whole.is_object(), "no payload of {message}");
        whole["components"] = json!({"schemas": self.document["components"]["schemas"]});
        close(&mut whole);
        Ok(jsonschema::options()
            .with_draft(jsonschema::Draft::Draft7)
            .should_validate_formats(true)
            .build(&whole)?)
    }

    fn check(&self, message: &Value) -> Result<()> {
        let name = message["type"].as_str().context("a type")?;
        let schema = self.schema(name)?;
        let errors: Vec<_> = schema
            .iter_errors(message)
            .map(|error| error.to_string())
            .collect();
        ensure!(errors.is_empty(), "{message}: {errors:?}");
        Ok(())
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                fields.insert("additionalProperties".into(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn the_document_is_asyncapi_and_says_no_type_too_much() -> Result<()> {
    let contract = Contract::read()?;
    let specification = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft7)
        .build(&serde_json::from_str(ASYNCAPI)?)?;
    let errors: Vec<_> = specification
        .iter_errors(&contract.document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(errors.is_empty(), "{errors:?}");
    let mut broken = contract.document.clone();
    broken["operations"]["say"]["action"] = json!("shout");
    ensure!(!specification.is_valid(&broken), "the check itself works");

    // Whatever a reference names is there, and every message is in one direction.
    let mut references = Vec::new();
    collect(&contract.document, &mut references);
    for reference in &references {
        let pointer = reference
            .strip_prefix('#')
            .context("a reference into the document")?;
        ensure!(contract.document.pointer(pointer).is_some(), "{reference}");
    }
    let messages = contract.document["components"]["messages"]
        .as_object()
        .context("messages")?;
    for name in messages.keys() {
        let wanted = format!("#/channels/live/messages/{name}");
        ensure!(
            references.iter().filter(|found| **found == wanted).count() == 1,
            "{name}"
        );
        contract.schema(name)?;
    }
    Ok(())
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                references.push(reference.clone());
            }
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

/// Records with every field there is, with values as long as real ones get.
fn full_records(device: &str) -> Vec<(&'static str, String, Vec<u8>)> {
    let reading = |kind: &str, reading: Value| {
        json!({"id": format!("p0/9c41f02b/1234567890/{kind}"), "agent": "p0", "device_id": device,
            "time": "2026-01-01T08:00:12.610123Z", "clock": "corrected", "location": "upstairs bathroom", "kind": kind,
            "reading": reading})
    };
    let event = |number: u32, kind: &str, mut fields: Value| {
        fields["id"] = json!(format!("p0/9c41f02b/99{number}"));
        fields["time"] = json!("2026-01-01T08:00:12.610123Z");
        fields["type"] = json!(kind);
        fields
    };
    let range = json!({"from": "2026-01-01T08:00:12.610123Z", "to": "2026-01-01T09:00:12.610123Z"});
    let records = [
        (
            topic::TEMPERATURE,
            reading(
                "temperature",
                json!({"temperature_c": -21.34, "humidity_percent": 44.61,
            "battery_volts": 5.37, "battery_percent": 100, "external_power": false, "rssi_dbm": -58,
            "uptime_seconds": 12_345_678, "wake_period_seconds": 7_200, "wind_speed_ms": 12.34, "pressure_hpa": 1013.25}),
            ),
        ),
        (
            topic::ENERGY,
            reading(
                "energy",
                json!({"power_w": 12_345.6, "power_l1_w": 4_345.61, "power_l2_w": -4_345.62,
            "power_l3_w": 4_345.63, "export_power_w": 1_234.5, "energy_wh": 123_456_789.12, "export_energy_wh": 123_456_789.12,
            "voltage_l1_v": 230.12, "voltage_l2_v": 230.12, "voltage_l3_v": 230.12, "current_l1_a": 12.345,
            "current_l2_a": 12.345, "current_l3_a": 12.345, "power_factor": -0.987, "meter_id": "7359992912345678",
            "meter_type": "6534-AIDON", "rssi_dbm": -58}),
            ),
        ),
        (
            topic::HEATPUMP,
            reading(
                "heatpump",
                json!({"outdoor_c": -14.25, "indoor_c": 21.34, "supply_c": 38.12,
            "return_c": 33.12, "hot_water_c": 51.12, "brine_in_c": -13.25, "brine_out_c": -11.25, "integral": -182.5,
            "flow_pump_percent": 100, "compressor_on": false, "brine_pump_on": false, "flow_pump_on": false,
            "hot_water_on": false, "aux_3kw_on": false, "aux_6kw_on": false, "compressor_hours": 41_231,
            "hot_water_hours": 18_123, "aux_3kw_hours": 11_120, "aux_6kw_hours": 11_114, "settings": {"indoor_target_c": 21,
            "mode": 1, "curve": 38, "curve_min": 22, "curve_max": 55, "curve_plus_5": -1, "curve_zero": -1,
            "curve_minus_5": -1, "heat_stop_c": 17, "integral": 60}}),
            ),
        ),
        (
            topic::PLUG,
            reading(
                "plug",
                json!({"on": false, "power_w": 2_345.67, "energy_wh": 12_345_678.9, "voltage_v": 230.12,
            "current_a": 12.345, "rssi_dbm": -58, "uptime_seconds": 12_345_678}),
            ),
        ),
        (
            topic::EVENTS,
            event(1, "buffer_loss", {
                let mut fields = range;
                fields["count"] = json!(1_234_567);
                fields["reason"] = json!("drop_oldest");
                fields["agent"] = json!("p0");
                fields
            }),
        ),
        (
            topic::EVENTS,
            event(2, "clock_step", json!({"agent": "p0", "step_seconds": -3_600.25})),
        ),
        (
            topic::EVENTS,
            event(
                3,
                "device_online",
                json!({"agent": "p0", "device_id": device, "online": false}),
            ),
        ),
        (
            topic::EVENTS,
            event(
                4,
                "command_outcome",
                json!({"agent": "p0", "device_id": device, "command_id": 42, "attempt": 3,
            "outcome": "no_subscriber"}),
            ),
        ),
        (
            topic::EVENTS,
            event(
                5,
                "outbox_changed",
                json!({"device_id": device, "outbox_id": 42, "status": "confirmed"}),
            ),
        ),
    ];
    let lines = records.into_iter();
    lines
        .map(|(topic, record)| (topic, device.to_owned(), record.to_string().into_bytes()))
        .collect()
}

#[test]
fn real_messages_of_every_type_are_what_the_document_says() -> Result<()> {
    with_world(async |world: &'static World| {
        let contract = Contract::read()?;
        let device = "live-contract-0a1b2c3d4e5f";
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut check = |message: &Value| {
            seen.insert(message["type"].as_str().unwrap_or_default().to_owned());
            contract.check(message)
        };
        let say = async |client: &mut Client, message: Value| {
            contract.check(&message)?;
            client.say(message).await?;
            client.next().await
        };
        let server = world.server();
        let mut client = server.connect(&server.url(), &[]).await?;
        check(
            &say(
                &mut client,
                json!({"type": "authenticate", "token": world.token(ALL_SCOPES)}),
            )
            .await?,
        )?;
        let all = json!(["energy", "temperature", "heatpump", "plug", "events"]);
        let subscribe = json!({"type": "subscribe", "streams": all, "devices": [device]});
        let answer = say(&mut client, subscribe).await?;
        check(&answer)?;
        let at_start = answer["cursor"].clone();

        let records = full_records(device);
        let mut of_type: BTreeSet<String> = BTreeSet::new();
        for record in &records {
            world.produce(std::slice::from_ref(record)).await?;
            // Events of no device come from other tests as well.
            let message = loop {
                let message = client.next().await?;
                check(&message)?;
                let sent: Value = serde_json::from_slice(&record.2)?;
                if message["id"] == sent["id"] {
                    let shown = if message["stream"] == "events" {
                        &message["data"]
                    } else {
                        &message["data"]["reading"]
                    };
                    let wanted = if message["stream"] == "events" {
                        &sent
                    } else {
                        &sent["reading"]
                    };
                    ensure!(same(shown, wanted), "{shown} is not {wanted}");
                    break message;
                }
            };
            let bytes = message.to_string().len();
            ensure!(bytes < FRAME_BYTES, "{bytes} bytes: {message}");
            let kind = message["data"]["type"].as_str().or(message["stream"].as_str());
            of_type.insert(kind.context("a kind")?.to_owned());
        }
        ensure!(of_type.len() == records.len(), "{of_type:?}");

        check(&say(&mut client, json!({"type": "ping"})).await?)?;
        check(&say(&mut client, json!({"type": "unsubscribe", "streams": all})).await?)?;
        check(
            &say(
                &mut client,
                json!({"type": "subscribe", "streams": ["energy"], "devices": null, "since": at_start}),
            )
            .await?,
        )?;
        // A cursor far beyond the end of every topic: of a former life of them. Layout: cluster/energy-ws/src/position.rs.
        let beyond =
            BASE64_URL_SAFE_NO_PAD.encode([&[1, 0][..], &[1, 0xff, 0xff, 0xff, 0x7f].repeat(5)].concat());
        let mut returned = world.client(ALL_SCOPES).await?;
        check(
            &say(
                &mut returned,
                json!({"type": "subscribe", "streams": ["plug"], "since": beyond}),
            )
            .await?,
        )?;
        let gap = returned.next().await?;
        check(&gap)?;
        ensure!(
            gap["type"] == "gap" && gap["reason"] == "reset" && gap["stream"] == "plug",
            "{gap}"
        );

        let mut codes = BTreeSet::new();
        for wrong in [
            json!({"type": "subscribe", "streams": ["water"]}),
            json!({"type": "subscribe", "streams": ["plug"], "since": "yesterday"}),
            json!({"type": "shout"}),
        ] {
            let mut client = world.client("read:energy read:plugs").await?;
            client.say(wrong).await?;
            let message = client.next().await?;
            check(&message)?;
            codes.insert(message["code"].as_str().context("a code")?.to_owned());
        }
        ensure!(codes.len() == 3, "{codes:?}");
        let mut client = world.client("read:energy").await?;
        check(&say(&mut client, json!({"type": "subscribe", "streams": ["plug"]})).await?)?;

        let sent = contract.document["operations"]["say"]["messages"]
            .as_array()
            .context("messages")?;
        let documented: BTreeSet<String> = sent
            .iter()
            .filter_map(|message| Some(message["$ref"].as_str()?.rsplit('/').next()?.to_owned()))
            .collect();
        ensure!(seen == documented, "{seen:?} is not {documented:?}");
        Ok(())
    })
}

/// Equal as JSON values, 1 and 1.0 included.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => one.as_f64() == two.as_f64(),
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .all(|(key, value)| two.get(key).is_some_and(|other| same(value, other)))
        }
        _ => one == two,
    }
}
