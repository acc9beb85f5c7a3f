//! The fields of a JSON object that changes something: each is looked at, and all faults are answered together.

use axum::http::StatusCode;
use serde_json::{Map, Value};
use service::Problem;

/// Faults listed in one answer; a body of rubbish has thousands.
const MOST_FAULTS: usize = 32;
/// Longest name of an unknown field that is repeated in the answer.
const MOST_NAME_CHARS: usize = 64;

/// A body under examination.
pub(crate) struct Form {
    fields: Map<String, Value>,
    faults: Vec<(String, String)>,
}

impl Form {
    /// Anything but an object is refused at once.
    pub(crate) fn new(body: Value) -> Result<Self, Problem> {
        match body {
            Value::Object(fields) => Ok(Self {
                fields,
                faults: Vec::new(),
            }),
            _ => Err(Problem::bad_request("the body is not a JSON object")),
        }
    }

    /// Takes a field out and reads it. A value that `read` does not take is a fault; its text follows the field's name.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.fields.remove(name)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.fault(name, fault);
                None
            }
        }
    }

    /// As [`Form::take`], where the field must be there.
    pub(crate) fn need<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.fields.contains_key(name) {
            self.fault(name, "is missing");
        }
        self.take(name, read)
    }

    /// Adds a fault.
    pub(crate) fn fault(&mut self, name: &str, fault: impl Into<String>) {
        self.faults.push((name.to_owned(), fault.into()));
    }

    /// 400 with every fault, among them the fields nobody has taken.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for name in self.fields.keys() {
            let name: String = name.chars().take(MOST_NAME_CHARS).collect();
            self.faults
                .push((name, "is not a field that can be set".to_owned()));
        }
        match &self.faults[..] {
            [] => Ok(()),
            [(name, fault)] => Err(Problem::field(name, fault)),
            many => {
                let detail = format!("{} fields cannot be taken", many.len());
                let problem = Problem::new(StatusCode::BAD_REQUEST, detail);
                Err(many
                    .iter()
                    .take(MOST_FAULTS)
                    .fold(problem, |problem, (name, fault)| problem.with_field(name, fault)))
            }
        }
    }
}

/// Reads true or false.
pub(crate) fn boolean(value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| "is neither true nor false".to_owned())
}

/// Reads a whole number within limits.
pub(crate) fn whole(low: i64, high: i64) -> impl Fn(&Value) -> Result<i64, String> {
    move |value| match value.as_i64() {
        Some(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(format!("is not a whole number from {low} to {high}")),
    }
}
