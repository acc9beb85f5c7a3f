//! Changes: accepted once, followed, refused; and a time without database or broker.

use super::*;

#[test]
fn a_change_is_accepted_once_and_can_be_followed() {
    with_house(async |house| {
        let device = "ivt-change";
        let path = format!("/api/v1/heatpump/settings/{device}");
        house
            .knows_pump(
                device,
                json!({"indoor_target_c": 20, "curve_min": 22, "curve_max": 55}),
            )
            .await;

        let key = [("Idempotency-Key", "wish-1")];
        let body = json!({"indoor_target_c": 22, "curve": 40});
        let (status, headers, first) = house.send("PATCH", &path, &key, body.clone()).await;
        assert_eq!(
            (status, &first["status"], &first["device_id"]),
            (202, &json!("pending"), &json!(device))
        );
        let id = first["outbox_id"].as_i64().unwrap();
        assert_eq!(
            headers["location"],
            format!("/api/v1/heatpump/settings/outbox/{id}").as_str()
        );
        let (status, _, again) = house.send("PATCH", &path, &key, body).await;
        assert_eq!((status, again["outbox_id"].as_i64()), (202, Some(id)));
        let other = json!({"indoor_target_c": 23});
        assert_eq!(house.send("PATCH", &path, &key, other.clone()).await.0, 422);
        let together = [("Idempotency-Key", "wish-together")];
        let send = || house.send("PATCH", &path, &together, json!({"heat_stop_c": 16}));
        let (a, b, c) = tokio::join!(send(), send(), send());
        assert_eq!((a.0, b.0, c.0), (202, 202, 202));
        assert_eq!(
            (&a.2["outbox_id"], &b.2["outbox_id"]),
            (&b.2["outbox_id"], &c.2["outbox_id"])
        );

        // A later change takes over its fields; what is left is still wanted, and nothing of it is reported.
        assert_eq!(house.send("PATCH", &path, &[], other).await.0, 202);
        let shown = house.settings_of(device).await;
        assert_eq!(
            shown["wanted"],
            json!({"indoor_target_c": 23, "curve": 40, "heat_stop_c": 16})
        );
        assert_eq!(
            (&shown["reported"]["indoor_target_c"], &shown["reported"]["curve"]),
            (&json!(20), &Value::Null)
        );
        let command = format!("/api/v1/heatpump/settings/outbox/{id}");
        let (_, one) = house.ask(&command, "read:settings").await;
        assert_eq!(
            (&one["asked"], &one["wanted"]),
            (
                &json!({"indoor_target_c": 22, "curve": 40}),
                &json!({"curve": 40})
            )
        );
        assert_eq!(one["history"][0]["status"], "pending");
        assert!(
            one["requested_by"]
                .as_str()
                .is_some_and(|subject| !subject.is_empty()),
            "{one}"
        );
        assert_eq!(house.send("PATCH", &path, &[], json!({"curve": 41})).await.0, 202);
        let (_, one) = house.ask(&command, "read:settings").await;
        assert_eq!(one["status"], "superseded");
        assert_eq!(
            one["history"].as_array().unwrap().last().unwrap()["status"],
            "superseded"
        );

        let (_, page) = house
            .ask(&format!("{path}/outbox?limit=2"), "read:settings")
            .await;
        let next = page["next"].as_i64().unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 2);
        let (_, rest) = house
            .ask(&format!("{path}/outbox?limit=2&before={next}"), "read:settings")
            .await;
        assert_eq!(
            (rest["items"][1]["id"].as_i64(), &rest["next"]),
            (Some(id), &Value::Null)
        );
        for query in ["limit=0", "limit=101", "limit=x", "page=2"] {
            assert_eq!(
                house
                    .ask(&format!("{path}/outbox?{query}"), "read:settings")
                    .await
                    .0,
                400,
                "{query}"
            );
        }
    });
}

#[test]
fn changes_that_cannot_be_taken_are_refused_and_change_nothing() {
    with_house(async |house| {
        let device = "ivt-refused";
        let path = format!("/api/v1/heatpump/settings/{device}");
        house
            .knows_pump(
                device,
                json!({"indoor_target_c": 20, "curve_min": 22, "curve_max": 55}),
            )
            .await;
        for (body, fields) in [
            (json!({"indoor_target_c": 31}), vec!["indoor_target_c"]),
            (
                json!({"indoor_target_c": 14, "mode": 5}),
                vec!["indoor_target_c", "mode"],
            ),
            (json!({"d50": 22}), vec!["d50"]),
            (json!({"indoor_target_c": "22"}), vec!["indoor_target_c"]),
            (json!({"curve_max": 21}), vec!["curve_max"]),
            (json!({}), vec![]),
            (json!([1]), vec![]),
        ] {
            let (status, headers, problem) = house.send("PATCH", &path, &[], body.clone()).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (400, &"application/problem+json".parse().unwrap())
            );
            let named: Vec<_> = problem["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| e["field"].clone())
                .collect();
            assert_eq!(named, fields, "{body}");
        }
        let good = json!({"indoor_target_c": 22});
        assert_eq!(
            house
                .send("PATCH", &path, &[("Idempotency-Key", "")], good.clone())
                .await
                .0,
            400
        );
        assert_eq!(
            house
                .send("PATCH", &path, &[("If-Match", "\"other\"")], good.clone())
                .await
                .0,
            412
        );
        let (_, page) = house.ask(&format!("{path}/outbox"), "read:settings").await;
        assert_eq!(page["items"], json!([]));

        let response = house
            .client
            .get(format!("{}{path}", house.url))
            .bearer_auth(house.issuer.good(ALL_SCOPES));
        let tag = response.send().await.unwrap().headers()["etag"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            house
                .send("PATCH", &path, &[("If-Match", &tag)], good.clone())
                .await
                .0,
            202
        );
        assert_eq!(
            house
                .send("PATCH", &path, &[("If-Match", &tag)], json!({"mode": 2}))
                .await
                .0,
            412
        );
        assert_eq!(
            house
                .send("PATCH", "/api/v1/heatpump/settings/nobody", &[], good)
                .await
                .0,
            404
        );
    });
}

#[test]
fn plugs_are_held_to_the_same_rules() {
    with_house(async |house| {
        let (topic, value) = switched("plug-rules", &ago(1), true);
        house.produce(vec![(topic, "plug-rules", value)]);
        house
            .until("the plug is known", async || {
                house.plug("plug-rules").await["on"] == true
            })
            .await;
        let path = "/api/v1/plugs/plug-rules";
        for body in [
            json!({}),
            json!({"on": "yes"}),
            json!({"on": null}),
            json!({"on": true, "colour": "red"}),
            json!([true]),
        ] {
            let (status, headers, problem) = house.send("PATCH", path, &[], body.clone()).await;
            assert_eq!(status, 400, "{body}: {problem}");
            assert_eq!(headers["content-type"], "application/problem+json");
        }
        let off = json!({"on": false});
        assert_eq!(
            house
                .send("PATCH", path, &[("If-Match", "\"other\"")], off.clone())
                .await
                .0,
            412
        );
        let key = [("Idempotency-Key", "plug-wish")];
        let (status, _, first) = house.send("PATCH", path, &key, off.clone()).await;
        assert_eq!(status, 202, "{first}");
        let (status, _, again) = house.send("PATCH", path, &key, off.clone()).await;
        assert_eq!((status, &again["outbox_id"]), (202, &first["outbox_id"]));
        assert_eq!(house.send("PATCH", path, &key, json!({"on": true})).await.0, 422);
        assert_eq!(house.send("PATCH", "/api/v1/plugs/nobody", &[], off).await.0, 404);
    });
}

#[test]
fn nothing_is_lost_while_database_or_broker_are_away() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let house = house("outages").await;
        let send = |plug: &str, on: bool| {
            let (topic, value) = switched(plug, &ago(1), on);
            house.produce(vec![(topic, plug, value)]);
        };
        send("before", true);
        house
            .until("the first is taken", async || {
                house.plug("before").await["on"] == true
            })
            .await;

        house.postgres.stop().await;
        send("meanwhile", true);
        house
            .until("readyz names the database", async || {
                house.failing().await == ["database"]
            })
            .await;
        let (status, body) = house.ask("/api/v1/plugs", "read:plugs").await;
        assert_eq!(
            (status, body["detail"].as_str()),
            (503, Some("the service cannot answer just now"))
        );
        house.postgres.part().restart().await.unwrap();
        house
            .until("what came meanwhile is taken", async || {
                house.plug("meanwhile").await["on"] == true
            })
            .await;

        let Some(broker) = house.kafka.part() else {
            panic!("this test needs a broker of its own: unset KAFKA_BOOTSTRAP")
        };
        broker.kill().await;
        house
            .until("readyz names the broker", async || {
                house.failing().await == ["kafka"]
            })
            .await;
        assert_eq!(
            house.ask("/api/v1/plugs", "read:plugs").await.0,
            200,
            "what is known is shown all the while"
        );
        let path = "/api/v1/plugs/before";
        let (status, _, accepted) = house.send("PATCH", path, &[], json!({"on": false})).await;
        assert_eq!(
            status, 202,
            "what is wanted is accepted all the while: {accepted}"
        );
        let outbox =
            async |statement: &str| house.postgres.psql("homelab_settings", statement).await.unwrap();
        outbox("update outbox set expires_at = clock_timestamp() + interval '2 s'").await;
        house
            .until("it runs out in its time", async || {
                outbox("select status from outbox").await == "expired"
            })
            .await;
        broker.restart().await.unwrap();
        house
            .until("the broker is back", async || house.failing().await.is_empty())
            .await;
        send("after", true);
        house
            .until("what comes after is taken", async || {
                house.plug("after").await["on"] == true
            })
            .await;

        house.lifecycle.stop();
        house.lifecycle.wait().await.unwrap();
    });
}
