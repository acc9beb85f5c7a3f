//! Schedules: kept, run once within their grace, noted beyond it.

use super::*;

#[test]
fn schedules_are_kept() {
    with_house(async |house| {
        let (topic, value) = switched("plug-kept", &ago(1), true);
        house.produce(vec![(topic, "plug-kept", value)]);
        house
            .until("the plug is known", async || {
                house.plug("plug-kept").await["on"] == true
            })
            .await;
        let path = "/api/v1/plugs/plug-kept/schedules";
        let body = json!({"weekdays": [7, 1], "local_time": "02:30", "on": false});
        let (status, headers, made) = house.send("POST", path, &[], body).await;
        assert_eq!(
            (status, &made["weekdays"], &made["enabled"]),
            (201, &json!([1, 7]), &json!(true))
        );
        assert!(made["next_run_at"].is_string(), "{made}");
        let id = made["id"].as_i64().unwrap();
        assert_eq!(headers["location"], format!("schedules/{id}").as_str());
        let one = format!("{path}/{id}");
        let (status, _, changed) = house.send("PATCH", &one, &[], json!({"enabled": false})).await;
        assert_eq!(
            (status, &changed["local_time"], &changed["next_run_at"]),
            (200, &json!("02:30"), &Value::Null)
        );
        assert_eq!(house.send("PATCH", &one, &[], json!({})).await.0, 400);
        assert_eq!(
            house.send("PATCH", &one, &[], json!({"plug_id": "x"})).await.0,
            400
        );
        assert_eq!(house.send("POST", path, &[], json!({"on": true})).await.0, 400);
        let (_, list) = house.ask(path, "read:plugs").await;
        assert_eq!(
            (&list["time_zone"], &list["items"][0]["id"]),
            (&json!("Europe/Stockholm"), &json!(id))
        );
        let elsewhere = format!("/api/v1/plugs/plug-other/schedules/{id}");
        assert_eq!(house.send("DELETE", &elsewhere, &[], json!({})).await.0, 404);
        assert_eq!(house.send("DELETE", &one, &[], json!({})).await.0, 204);
        assert_eq!(house.send("DELETE", &one, &[], json!({})).await.0, 404);

        // No more than fifty.
        for n in 0..50 {
            let body = json!({"weekdays": [1], "local_time": format!("10:{n:02}"), "on": true});
            assert_eq!(house.send("POST", path, &[], body).await.0, 201, "{n}");
        }
        let body = json!({"weekdays": [1], "local_time": "11:00", "on": true});
        let (status, _, problem) = house.send("POST", path, &[], body).await;
        assert_eq!(status, 409, "{problem}");
    });
}

#[test]
fn a_run_is_made_once_within_its_grace_and_noted_beyond_it() {
    with_house(async |house| {
        let (topic, value) = switched("plug-run", &ago(1), true);
        house.produce(vec![(topic, "plug-run", value)]);
        house
            .until("the plug is known", async || {
                house.plug("plug-run").await["on"] == true
            })
            .await;
        // A second replica looks at the same schedules.
        let second = house.replica().await;
        let psql = async |statement: &str| house.postgres.psql("homelab_settings", statement).await.unwrap();
        // Each as many minutes ago: made, missed, and not yet begun when its time came.
        psql("insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by, effective_from)
            select 'plug-run', '{1,2,3,4,5,6,7}', ((now() - ago) at time zone 'Europe/Stockholm')::time, false, 'x', since
            from (values (interval '2 minutes', now() - interval '1 day'), ('40 minutes', now() - interval '1 day'),
                ('1 minute', now())) as v (ago, since)")
            .await;
        let runs = "select outcome, run.outbox_id is not null, requested_by = 'schedule:' || schedule.id
            from power_plug_schedule_runs as run join power_plug_schedules as schedule on schedule.id = schedule_id
            left join outbox on outbox.id = run.outbox_id
            where local_date > (now() at time zone 'Europe/Stockholm' - interval '12 hours')::date - 1
                and plug_id = 'plug-run' and run_at > now() - interval '1 hour' order by 1 desc";
        house
            .until("the runs are noted", async || {
                psql(runs).await.contains("queued|t|t")
            })
            .await;
        house
            .until("the missed one too", async || {
                psql(runs).await.contains("missed|f|")
            })
            .await;
        // Both replicas look every second: what they would do again, they have had the time to.
        let looked = Instant::now();
        house
            .until("both have looked again", async || {
                looked.elapsed() > Duration::from_secs(3)
            })
            .await;
        assert_eq!(
            psql("select count(*) from outbox where device_id = 'plug-run'").await,
            "1"
        );
        assert_eq!(house.plug("plug-run").await["wanted_on"], false);
        second.stop();
        second.wait().await.unwrap();
    });
}
