//! Refused parameters, compression and caches, and a database that is away.

use super::*;

#[test]
fn wrong_parameters_are_named() {
    with_house(async |house| {
        let token = house.issuer.good(ALL_SCOPES);
        let year = "from=2025-01-01T00:00:00Z&to=2026-06-01T00:00:00Z";
        for (path, field) in [
            (
                "/api/v1/energy/history?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
                "from",
            ),
            (
                "/api/v1/energy/history?from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z",
                "from",
            ),
            ("/api/v1/energy/history?from=0000-01-01T00:00:00Z", "from"),
            ("/api/v1/energy/history?to=9999-12-31T23:59:59Z", "to"),
            ("/api/v1/energy/history?to=NaN", "to"),
            ("/api/v1/energy/history?device_id=", "device_id"),
            ("/api/v1/energy/latest?device_id=a%00b", "device_id"),
            ("/api/v1/temperature/latest?location=%00", "location"),
            ("/api/v1/temperature/history?hours=0", "hours"),
            ("/api/v1/temperature/history?hours=8785", "hours"),
            ("/api/v1/temperature/history?hours=NaN", "hours"),
            (
                "/api/v1/temperature/history?hours=1&to=2026-01-01T00:00:00Z",
                "hours",
            ),
            (&format!("/api/v1/temperature/history?{year}"), "from"),
            (&format!("/api/v1/heatpump/history?{year}"), "from"),
            ("/api/v1/heatpump/history?resolution=1s", "resolution"),
            (
                "/api/v1/heatpump/history?resolution=1m&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
                "resolution",
            ),
            ("/api/v1/plugs/%00/history", "device_id"),
            ("/api/v1/events?from=2020-01-01T00:00:00Z", "from"),
        ] {
            let answer = house.ask(path, &token).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
            assert_eq!(
                answer.body["errors"][0]["field"], field,
                "{path}: {}",
                answer.body
            );
            assert_eq!(
                answer.headers["content-type"], "application/problem+json",
                "{path}"
            );
        }
        for path in [
            "/api/v1/energy/history?from=2026-01-01T00:00:00Z&from=2026-01-01T00:00:00Z",
            "/api/v1/plugs/%ff/history",
        ] {
            assert_eq!(house.ask(path, &token).await.status, 400, "{path}");
        }
        let hostile = "/api/v1/energy/latest?device_id=';drop%20table%20energy_consumption--";
        assert_eq!(house.get(hostile).await, json!({"items": []}));
        let post = house
            .client
            .post(format!("{}/api/v1/energy/latest", house.url))
            .bearer_auth(&token)
            .send();
        assert_eq!(post.await.unwrap().status(), 405);
    });
}

#[test]
fn large_answers_are_compressed_and_none_is_cached() {
    with_house(async |house| {
        let request = house
            .client
            .get(format!("{}/openapi.json", house.url))
            .header("accept-encoding", "gzip");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let answer = house
            .ask("/api/v1/energy/latest", &house.issuer.good(ALL_SCOPES))
            .await;
        assert_eq!(answer.headers["cache-control"], "no-store");
    });
}

#[test]
fn a_database_that_is_away_or_busy_is_503_and_found_again() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let house = house().await;
        let token = house.issuer.good(ALL_SCOPES);
        let path = "/api/v1/temperature/all-latest";
        assert_eq!(house.ask(path, &token).await.status, 200);

        // More requests than connections, all waiting for a lock: those without a connection are answered soon.
        let locked = house.sql("begin; lock table temperature_sensors; select pg_sleep(6); commit");
        let asked = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut answers = tokio::task::JoinSet::new();
            for _ in 0..12 {
                let request = house
                    .client
                    .get(format!("{}{path}", house.url))
                    .bearer_auth(&token)
                    .send();
                answers.spawn(async move {
                    let response = request.await.unwrap();
                    (
                        response.status().as_u16(),
                        response.headers().get("retry-after").is_some(),
                    )
                });
            }
            answers.join_all().await
        };
        let ((), answers) = tokio::join!(locked, asked);
        let refused = answers.iter().filter(|answer| **answer == (503, true)).count();
        let answered = answers.iter().filter(|answer| answer.0 == 200).count();
        assert_eq!((refused, answered), (4, 8), "{answers:?}");

        house.postgres.stop().await;
        let away = house.ask(path, &token).await;
        assert_eq!(
            (away.status, away.headers.get("retry-after").is_some()),
            (503, true)
        );
        assert_eq!(away.body["detail"], "the service cannot answer just now");
        house
            .until_ready(json!({"status": "unavailable", "failing": ["database"]}))
            .await;
        house.postgres.part().restart().await.unwrap();
        house.postgres.ready().await.unwrap();
        house.until_ready(json!({"status": "ok"})).await;
        assert_eq!(house.ask(path, &token).await.status, 200);
    });
}
