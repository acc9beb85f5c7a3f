//! What devices reported, and what is wanted of them.

use super::*;

#[test]
fn the_newest_report_is_shown_whatever_comes_after_it() {
    with_house(async |house| {
        let newest = ago(10);
        let all = json!({"indoor_target_c": 21, "mode": 1, "curve": 38, "curve_min": 22, "curve_max": 55, "curve_plus_5": 1,
            "curve_zero": 0, "curve_minus_5": -1, "heat_stop_c": 17, "integral": 60});
        let records = [
            pump("ivt-1", &ago(20), "synced", all),
            pump("ivt-1", &newest, "synced", json!({"indoor_target_c": 23})),
            pump("ivt-1", &ago(3_600), "synced", json!({"indoor_target_c": 15})),
            pump("ivt-1", &ago(60), "unsynced", json!({"indoor_target_c": 16})),
            pump("ivt-1", &ago(-7_200), "synced", json!({"indoor_target_c": 17})),
            pump("ivt-1", &ago(-60), "unsynced", json!({"indoor_target_c": 18})),
            pump("ivt-end", &ago(0), "synced", json!({"mode": 4})),
        ];
        // One partition keeps their order, and the last of them says that all were read.
        house.produce(
            records
                .into_iter()
                .map(|(topic, value)| (topic, "ivt-1", value))
                .collect(),
        );
        house
            .until("the last record is read", async || {
                house.settings_of("ivt-end").await["reported"]["mode"] == 4
            })
            .await;
        assert_eq!(
            house.settings_of("ivt-1").await,
            json!({"device_id": "ivt-1", "agent": "p0", "reported_at": newest, "wanted": {},
                "reported": {"indoor_target_c": 23, "mode": 1, "curve": 38, "curve_min": 22, "curve_max": 55,
                    "curve_plus_5": 1, "curve_zero": 0, "curve_minus_5": -1, "heat_stop_c": 17, "integral": 60}})
        );
        let (status, list) = house.ask("/api/v1/heatpump/settings", "read:settings").await;
        let ids: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["device_id"].clone())
            .collect();
        assert!(
            status == 200 && ids.contains(&json!("ivt-1")) && ids.contains(&json!("ivt-end")),
            "{list}"
        );
    });
}

#[test]
fn a_batch_later_the_same_rule_holds() {
    with_house(async |house| {
        let (first, second) = (ago(30), ago(20));
        let send = |(topic, value): (&'static str, String)| house.produce(vec![(topic, "plug-a", value)]);
        send(switched("plug-a", &second, true));
        house
            .until("the plug is on", async || {
                house.plug("plug-a").await["on"] == true
            })
            .await;
        send(switched("plug-a", &first, false));
        send(switched("plug-b", &ago(5), false));
        house
            .until("the later record is read", async || {
                house.plug("plug-b").await["on"] == false
            })
            .await;
        assert_eq!(
            house.plug("plug-a").await,
            json!({"plug_id": "plug-a", "name": null, "agent": "p0", "on": true, "reported_at": second,
                "wanted_on": null})
        );
        send(switched("plug-a", &ago(1), false));
        house
            .until("the plug is off", async || {
                house.plug("plug-a").await["on"] == false
            })
            .await;
    });
}

#[test]
fn bad_records_are_counted_and_passed_over() {
    with_house(async |house| {
        let bad = r#"homelab_settings_api_records_total{outcome="bad"}"#;
        let before = house.metric(bad).await;
        let odd_agent = switched("plug-bad", &ago(1), true)
            .1
            .replace(r#""agent":"p0""#, r#""agent":"p\u0000""#);
        let key = "plug-good";
        let plug = telemetry::topic::PLUG;
        // An open command makes every time that is seen be compared in the database.
        let open = "insert into outbox (device_id, agent, kind, wanted, asked, status, requested_by) values
            ('plug-bad', 'p0', 'plug_power', '{\"on\": true}', '{}', 'pending', 'x')";
        house.postgres.psql("homelab_settings", open).await.unwrap();
        let outcome = |time: &str| {
            json!({
                "type": "command_outcome", "id": format!("p0/{time}"), "time": time, "agent": "p0",
                "command_id": 1, "attempt": 1, "outcome": "published"
            })
            .to_string()
        };
        let events = telemetry::topic::EVENTS;
        house.produce(vec![
            (plug, key, switched("plug-bad", "0000-01-01T00:00:00Z", true).1),
            (events, "p0", outcome("-200000-01-01T00:00:00Z")),
            (events, "p0", outcome("+262142-12-31T23:59:59Z")),
        ]);
        house.produce(vec![
            (plug, key, String::new()),
            (plug, key, "not json".to_owned()),
            (plug, key, r#"{"kind":"water"}"#.to_owned()),
            (plug, key, odd_agent),
            (
                plug,
                key,
                record("plug", "plug-bad", &ago(1), "synced", json!({"on": "yes"})),
            ),
            (
                plug,
                key,
                record("plug", "plug-bad", &ago(1), "synced", json!({"power_w": 3})),
            ),
            (plug, key, switched(key, &ago(1), true).1),
        ]);
        house
            .until("the good record is taken", async || {
                house.plug(key).await["on"] == true
            })
            .await;
        assert_eq!(house.plug("plug-bad").await, Value::Null);
        house
            .until("the bad ones are counted", async || {
                house.metric(bad).await - before == 8.0
            })
            .await;
        let close = "update outbox set status = 'failed', finished_at = now() where device_id = 'plug-bad'";
        house.postgres.psql("homelab_settings", close).await.unwrap();
    });
}

#[test]
fn wanted_values_come_from_open_commands_alone() {
    with_house(async |house| {
        let (topic, value) = pump(
            "ivt-wanted",
            &ago(5),
            "synced",
            json!({"indoor_target_c": 20, "mode": 1}),
        );
        house.produce(vec![(topic, "ivt-wanted", value)]);
        let device = "ivt-wanted";
        house
            .until("the pump is known", async || {
                house.settings_of(device).await["device_id"] == device
            })
            .await;
        let insert = "insert into outbox (device_id, agent, kind, wanted, asked, status, finished_at, requested_by) values
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 24}', '{}', 'published', null, 'x'),
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 25, \"curve\": 40}', '{}', 'pending', null, 'x'),
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"mode\": 2}', '{}', 'failed', now(), 'x')";
        house.postgres.psql("homelab_settings", insert).await.unwrap();
        let body = house.settings_of(device).await;
        assert_eq!(body["wanted"], json!({"indoor_target_c": 25, "curve": 40}));
        assert_eq!(
            (&body["reported"]["indoor_target_c"], &body["reported"]["mode"]),
            (&json!(20), &json!(1))
        );
    });
}

#[test]
fn a_row_that_makes_no_command_fails_alone() {
    with_house(async |house| {
        let plug = "plug-odd";
        let (topic, value) = switched(plug, &ago(1), true);
        house.produce(vec![(topic, plug, value)]);
        house
            .until("the plug is known", async || house.plug(plug).await["on"] == true)
            .await;
        let rows = "insert into outbox (device_id, agent, kind, wanted, requested_by) values
            ('plug-odd', 'p0', 'plug_power', '{\"on\": \"yes\"}', 'x'), ('plug-odd', 'p0', 'plug_power', '{\"on\": true}', 'x')";
        house.postgres.psql("homelab_settings", rows).await.unwrap();
        let states = "select status, attempts from outbox where device_id = 'plug-odd' order by id";
        house
            .until("the one fails, the other is sent", async || {
                house.postgres.psql("homelab_settings", states).await.unwrap() == "failed|0\npublished|1"
            })
            .await;
    });
}
