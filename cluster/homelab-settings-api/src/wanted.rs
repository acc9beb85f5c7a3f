//! What may be wanted of a heat pump: the fields of a change and the limits of each.

use serde_json::{Map, Value};
use service::Problem;

use crate::form::{Form, whole};

/// Lowest and highest value of each setting. The first two are the pump's own (docs/DEVICES.md). The others keep a mistyped
/// number from reaching the pump: curves and supply temperatures that a floor or a radiator can bear, corrections and an
/// integral within the pump's menus.
pub(crate) const LIMITS: [(&str, i64, i64); 10] = [
    ("indoor_target_c", 15, 30),
    ("mode", 0, 4),
    ("curve", 10, 70),
    ("curve_min", 10, 50),
    ("curve_max", 20, 75),
    ("curve_plus_5", -10, 10),
    ("curve_zero", -10, 10),
    ("curve_minus_5", -10, 10),
    ("heat_stop_c", 0, 40),
    ("integral", 1, 200),
];

/// Checks a change, field by field. `current` is what holds or will hold: reported values under those already wanted.
pub(crate) fn check(body: Value, current: &Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    let mut form = Form::new(body)?;
    let mut wanted = Map::new();
    for (name, low, high) in LIMITS {
        if let Some(value) = form.take(name, whole(low, high)) {
            wanted.insert(name.to_owned(), value.into());
        }
    }
    let then = |name: &str| {
        wanted
            .get(name)
            .or_else(|| current.get(name))
            .and_then(Value::as_i64)
    };
    if let (Some(low), Some(high)) = (then("curve_min"), then("curve_max"))
        && low > high
    {
        let fault = format!("would be {low} to {high}: the lowest supply temperature is above the highest");
        for name in ["curve_min", "curve_max"] {
            if wanted.contains_key(name) {
                form.fault(name, fault.clone());
            }
        }
    }
    form.finish()?;
    if wanted.is_empty() {
        return Err(Problem::bad_request("the body changes nothing"));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::response::IntoResponse;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn changes_are_checked_field_by_field() {
        let current = json!({"curve_min": 22, "curve_max": 55, "mode": null});
        let current = current.as_object().unwrap();
        let check = async |body: Value, want: Result<Value, &[&str]>| {
            let got = match check(body.clone(), current) {
                Ok(wanted) => Ok(Value::Object(wanted)),
                Err(problem) => {
                    assert_eq!(problem.status(), 400, "{body}");
                    let bytes = to_bytes(problem.into_response().into_body(), 1 << 20)
                        .await
                        .unwrap();
                    let problem: Value = serde_json::from_slice(&bytes).unwrap();
                    let fields = problem["errors"].as_array().cloned().unwrap_or_default();
                    Err(fields
                        .iter()
                        .map(|e| e["field"].as_str().unwrap().to_owned())
                        .collect::<Vec<_>>())
                }
            };
            let want = want.map_err(|fields| fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
            assert_eq!(got, want, "{body}");
        };
        for (name, low, high) in LIMITS
            .into_iter()
            .filter(|(name, ..)| !name.starts_with("curve_m"))
        {
            check(json!({name: low}), Ok(json!({name: low}))).await;
            check(json!({name: high}), Ok(json!({name: high}))).await;
            check(json!({name: low - 1}), Err(&[name])).await;
            check(json!({name: high + 1}), Err(&[name])).await;
        }
        for bad in [
            json!(null),
            json!("22"),
            json!(22.5),
            json!(true),
            json!([22]),
            json!({}),
            json!(1e300),
            json!(u64::MAX),
        ] {
            check(json!({"indoor_target_c": bad}), Err(&["indoor_target_c"])).await;
        }
        check(json!({"mode": 9, "d50": 22}), Err(&["mode", "d50"])).await;
        check(
            json!({"curve_min": 40, "curve_max": 30}),
            Err(&["curve_min", "curve_max"]),
        )
        .await;
        check(json!({"curve_max": 21}), Err(&["curve_max"])).await;
        check(
            json!({"curve_min": 40, "curve_max": 40}),
            Ok(json!({"curve_min": 40, "curve_max": 40})),
        )
        .await;
        for empty in [json!({}), json!([]), json!(null), json!("x"), json!(22)] {
            check(empty, Err(&[])).await;
        }
    }
}
