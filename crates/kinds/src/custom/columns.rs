//! The columns that a definition gives its objects in Tables: each is a path, and what is there as its type.

use std::sync::Arc;

use api::jsonpath::JsonPath;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::builtin::read::Read;
use crate::builtin::table;

/// One column beside the name.
#[derive(Debug)]
pub struct Column {
    pub name: Arc<str>,
    pub type_: Arc<str>,
    pub format: Arc<str>,
    pub description: Arc<str>,
    pub priority: i64,
    path: Option<JsonPath>,
}

/// What Kubernetes says of the column that is there where a definition gives none.
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                   guaranteed to be set in happens-before order across separate operations. Clients may not set this \
                   value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for \
                   lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The columns of one version of a definition.
pub fn columns(version: &Value) -> Vec<Column> {
    let own = version.list("additionalPrinterColumns");
    if own.is_empty() {
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": AGE});
        return vec![Column::read(&age)];
    }
    own.iter().map(Column::read).collect()
}

impl Column {
    fn read(column: &Value) -> Column {
        let path = column.text("jsonPath");
        let description = match column.text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            own => own.to_owned(),
        };
        Column {
            name: column.text("name").into(),
            type_: column.text("type").into(),
            format: column.text("format").into(),
            description: description.into(),
            priority: column.int("priority"),
            path: JsonPath::parse(&format!("{{{path}}}")).ok(),
        }
    }

    /// What an object shows here; null where it has nothing, or something of another type.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().map(|path| path.find(object)).unwrap_or_default();
        let Some(value) = found.first() else { return Value::Null };
        match (&*self.type_, value) {
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(whole) => whole.into(),
                None => (number.as_f64().unwrap_or_default() as i64).into(),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("string", Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => {
                // Go prints maps with their keys in order.
                let mut sorted = (*other).clone();
                sorted.sort_all_objects();
                sorted.to_string().into()
            }
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(then) => table::human_duration(table::seconds_between(then, now)).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}
