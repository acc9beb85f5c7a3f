//! Devices whose frames alternate: the newest reading shows all of them.

use serde_json::{Value, json};

use crate::with_house;

#[test]
fn fields_of_alternating_frames_are_put_together() {
    with_house(async |house| {
        house
            .sql(
                "insert into energy_consumption (device_id, time, id, agent, clock, power_w, energy_wh, voltage_l1_v, meter_id)
                 values ('pro3em', now() - interval '1 s', 'f/4', 'p0', 'synced', 1500, null, null, null),
                        ('pro3em', now() - interval '20 s', 'f/3', 'p1', 'corrected', null, 5000, null, 'm'),
                        ('pro3em', now() - interval '9 min', 'f/2', 'p0', 'synced', 1400, 4000, 231, null),
                        ('pro3em', now() - interval '11 min', 'f/1', 'p0', 'synced', null, null, 999, null);
                 update energy_consumption set current_l1_a = 7 where id = 'f/1';
                 insert into heatpump_status (device_id, time, id, agent, clock, outdoor_c, compressor_on, settings_mode)
                 values ('pump-2', now() - interval '1 s', 'h/2', 'p0', 'synced', null, false, null),
                        ('pump-2', now() - interval '31 s', 'h/1', 'p0', 'synced', -4, true, 2)",
            )
            .await;
        let item = house.get("/api/v1/energy/latest?device_id=pro3em").await["items"][0].clone();
        for (field, want) in [
            ("agent", json!("p0")),
            ("clock", json!("synced")),
            ("power_w", json!(1500.0)),
            ("energy_wh", json!(5000.0)),
            ("meter_id", json!("m")),
            ("voltage_l1_v", json!(231.0)),
            ("current_l1_a", Value::Null),
        ] {
            assert_eq!(item[field], want, "{field} of {item}");
        }
        let newest: chrono::DateTime<chrono::Utc> = item["time"].as_str().unwrap().parse().unwrap();
        assert!(
            chrono::Utc::now() - newest < chrono::TimeDelta::seconds(15),
            "the newest frame's time: {item}"
        );
        let pump = house.get("/api/v1/heatpump/latest?device_id=pump-2").await["items"][0].clone();
        assert_eq!(
            (
                &pump["outdoor_c"],
                &pump["compressor_on"],
                &pump["settings"]["mode"],
                &pump["settings"]["curve"]
            ),
            (&json!(-4.0), &json!(false), &json!(2), &Value::Null)
        );
    });
}
