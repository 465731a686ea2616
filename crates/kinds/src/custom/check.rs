//! Whether a custom resource is as its schema wants it, in the words of the validator that Kubernetes uses for OpenAPI,
//! and in its order. A value that did not change is not held against a rule that came later.

use serde_json::{Map, Value};

use super::formats;
use super::node::{Additional, Checks, List, Node, Type};
use crate::builtin::read::Read;
use crate::kind::go_quote;
use crate::{Cause, CauseReason};

/// Everything wrong with a value. `path` is where the value is in its object, `""` for the object itself; texts name
/// fields from the value on. `old` is what the value was, where it was.
pub fn check(node: &Node, value: &Value, old: Option<&Value>, path: &str) -> Vec<Cause> {
    let found = Walk { path: String::new() }.value(node, value, old);
    found.errors.into_iter().map(|error| error.cause(path)).collect()
}

/// One thing that is wrong, before it is known where the value is.
struct Problem {
    /// The whole text; the same is told once.
    text: String,
    /// The field, with a dot before it in some places; `None` for what Kubernetes tells of no field.
    field: Option<String>,
    kind: Kind,
}

enum Kind {
    Required,
    Type(Value),
    OneOf(Value, Vec<String>),
    TooLong(u64),
    TooMany(usize, u64),
    Invalid(Value),
}

impl Problem {
    fn cause(self, base: &str) -> Cause {
        let Some(field) = self.field else {
            let field = if base.is_empty() { "<nil>" } else { base };
            return Cause::invalid(field, &"".into(), &self.text);
        };
        let field = match (base, field.trim_start_matches('.')) {
            ("", "") => "<nil>".to_owned(),
            ("", field) => field.to_owned(),
            (base, "") => base.to_owned(),
            (base, field) => format!("{base}.{field}"),
        };
        match self.kind {
            Kind::Required => Cause::required(field, ""),
            Kind::Type(value) => {
                Cause { reason: CauseReason::TypeInvalid, ..Cause::invalid(field, &value, &self.text) }
            }
            Kind::OneOf(value, known) => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Cause::not_supported(field, &value, &known)
            }
            Kind::TooLong(max) => Cause::too_long(field, usize::try_from(max).unwrap_or(usize::MAX)),
            Kind::TooMany(actual, max) => Cause::too_many(field, actual, usize::try_from(max).unwrap_or(usize::MAX)),
            Kind::Invalid(value) => Cause::invalid(field, &value, &self.text),
        }
    }
}

/// What a check found, and how many of its parts had something to say: of alternatives that all fail, the one that got
/// furthest is told of.
#[derive(Default)]
struct Found {
    errors: Vec<Problem>,
    matches: usize,
}

impl Found {
    fn add(&mut self, problem: Problem) {
        if !self.errors.iter().any(|error| error.text == problem.text) {
            self.errors.push(problem);
        }
    }

    fn merge(&mut self, other: Found) {
        self.matches += other.matches;
        other.errors.into_iter().for_each(|error| self.add(error));
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

struct Walk {
    path: String,
}

impl Walk {
    /// A value whose old state is known: what did not change stays allowed.
    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>) -> Found {
        let found = self.whole(node, value, old);
        if !found.is_valid() && old == Some(value) {
            return Found { errors: Vec::new(), matches: found.matches };
        }
        found
    }

    fn whole(&mut self, node: &Node, value: &Value, old: Option<&Value>) -> Found {
        let mut found = Found::default();
        if value.is_null() {
            found.merge(self.null(node));
            if let Some(checks) = &node.checks {
                self.one_of_values(checks, value, &mut found);
            }
            return found;
        }
        if !node.types.is_empty() || !node.format.is_empty() {
            found.merge(self.type_of(node, value));
            found.matches += 1;
        }
        found.merge(self.alternatives(node, value, old));
        found.matches += 1;
        let none = Checks::default();
        let checks = node.checks.as_deref().unwrap_or(&none);
        match value {
            Value::String(text) => {
                self.string(checks, text, &mut found);
                found.matches += 1;
                if formats::is_of_string(&node.format) {
                    if !formats::matches(&node.format, text) {
                        found.add(self.type_problem(&node.format, value.clone()));
                    }
                    found.matches += 1;
                }
            }
            Value::Number(_) => {
                found.merge(self.number(node, checks, value));
                found.matches += 1;
            }
            Value::Array(items) => {
                found.merge(self.list(node, checks, items, old));
                found.matches += 1;
            }
            _ => {}
        }
        self.one_of_values(checks, value, &mut found);
        found.matches += 1;
        if let Value::Object(fields) = value {
            found.merge(self.object(node, checks, fields, old));
            found.matches += 1;
        }
        found.matches += 1;
        found
    }

    fn problem(&self, kind: Kind, rest: &str) -> Problem {
        Problem { text: format!("{} in body {rest}", self.path), field: Some(self.path.clone()), kind }
    }

    fn type_problem(&self, wanted: &str, found: Value) -> Problem {
        let shown = go_quote(found.as_str().unwrap_or_default());
        self.problem(Kind::Type(found), &format!("must be of type {wanted}: {shown}"))
    }

    /// What is said of a value but of no field.
    fn loose(&self, text: String) -> Problem {
        Problem { text, field: None, kind: Kind::Invalid(Value::Null) }
    }

    fn null(&mut self, node: &Node) -> Found {
        let mut found = Found::default();
        match node.types.is_empty() || node.nullable {
            true => found.matches += 1,
            false => found.add(self.type_problem(&names(node.types), "null".into())),
        }
        found
    }

    fn type_of(&mut self, node: &Node, value: &Value) -> Found {
        let mut found = Found { matches: 1, ..Found::default() };
        let (own, width) = match value {
            Value::Null | Value::Bool(_) => (Type::Boolean, ""),
            Value::Number(number) if number.is_i64() || number.is_u64() => (Type::Integer, "int64"),
            Value::Number(_) => (Type::Number, "float64"),
            Value::String(_) => (Type::String, ""),
            Value::Array(_) => (Type::Array, ""),
            Value::Object(_) => (Type::Object, ""),
        };
        let has = |wanted: Type| node.types.contains(&wanted);
        let is_whole = own == Type::Number && value.as_f64().is_some_and(is_whole) && has(Type::Integer);
        let is_numeric = own == Type::Integer && has(Type::Number);
        let is_text = matches!(value, Value::String(_) | Value::Array(_));
        let formatted = !node.format.is_empty();
        if !is_text && formatted && !(has(own) || *node.format == *width || is_whole || is_numeric) {
            found.matches = 0;
            found.add(self.type_problem(&node.format, width.into()));
        } else if !(has(Type::Number) || has(Type::Integer)) && formatted && is_text {
            // The format tells.
        } else if !(has(own) || is_whole || is_numeric) {
            found.matches = 0;
            found.add(self.type_problem(&names(node.types), own.name().into()));
        }
        found
    }

    fn alternatives(&mut self, node: &Node, value: &Value, old: Option<&Value>) -> Found {
        let mut out = Found::default();
        let Some(checks) = &node.checks else { return Found { matches: 1, ..out } };
        let path = go_quote(&self.path);
        if !checks.any_of.is_empty() {
            let (found, valid) = self.best(&checks.any_of, value, old, true);
            if valid == 0 {
                out.add(self.loose(format!("{path} must validate at least one schema (anyOf)")));
            }
            found.into_iter().for_each(|found| out.merge(found));
        }
        if !checks.one_of.is_empty() {
            let (found, valid) = self.best(&checks.one_of, value, old, false);
            let found = found.filter(|found| valid == 1 || !found.is_valid());
            if valid != 1 {
                let how = match valid {
                    0 => "Found none valid".to_owned(),
                    many => format!("Found {many} valid alternatives"),
                };
                out.add(self.loose(format!("{path} must validate one and only one schema (oneOf). {how}")));
            }
            found.into_iter().for_each(|found| out.merge(found));
        }
        if !checks.all_of.is_empty() {
            let mut valid = 0;
            for one in &checks.all_of {
                let found = self.whole(one, value, old);
                valid += usize::from(found.is_valid());
                out.merge(found);
            }
            if valid != checks.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                out.add(self.loose(format!("{path} must validate all the schemas (allOf){none}")));
            }
        }
        if let Some(not) = &checks.not
            && self.whole(not, value, old).is_valid()
        {
            out.add(self.loose(format!("{path} must not validate the schema (not)")));
        }
        out.matches += 1;
        out
    }

    /// The first that is right, or the wrong one that got furthest; and how many are right.
    fn best(&mut self, nodes: &[Node], value: &Value, old: Option<&Value>, first: bool) -> (Option<Found>, usize) {
        let (mut right, mut wrong, mut valid) = (None, None::<Found>, 0);
        for node in nodes {
            let found = self.whole(node, value, old);
            if found.is_valid() {
                valid += 1;
                right.get_or_insert(found);
                if first {
                    break;
                }
            } else if valid == 0 && wrong.as_ref().is_none_or(|best| found.matches > best.matches) {
                wrong = Some(found);
            }
        }
        (right.or(wrong), valid)
    }

    fn string(&self, checks: &Checks, text: &str, found: &mut Found) {
        let characters = text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| characters > *max) {
            found.add(self.problem(Kind::TooLong(max), &format!("should be at most {max} chars long")));
        } else if let Some(min) = checks.min_length.filter(|min| characters < *min) {
            found.add(self.problem(Kind::Invalid(text.into()), &format!("should be at least {min} chars long")));
        } else if let Some(pattern) = &checks.pattern
            && !pattern.regex.as_ref().is_some_and(|regex| regex.is_match(text))
        {
            found.add(self.problem(Kind::Invalid(text.into()), &format!("should match '{}'", pattern.text)));
        }
    }

    fn number(&self, node: &Node, checks: &Checks, value: &Value) -> Found {
        let mut found = Found { matches: 1, ..Found::default() };
        let number = value.as_f64().unwrap_or_default();
        let whole = value.as_i64();
        let type_ = match node.types {
            [one] => Some(*one),
            _ => None,
        };
        let range = |what: &str, number: f64, whole: Option<i64>| {
            let text = out_of_range(type_, &node.format, number, whole)?;
            Some(self.loose(format!("{what} value must be of type {text} in {}", self.path)))
        };
        range("Checked", number, whole).into_iter().for_each(|problem| found.add(problem));
        let shown = |limit: f64| if whole.is_some() { (limit as i64).to_string() } else { go_float(limit) };
        // Limits of whole numbers are read as whole numbers.
        let limit = |limit: f64| if whole.is_some() { limit.trunc() } else { limit };
        if let Some(factor) = checks.multiple_of {
            range("MultipleOf", factor, None).into_iter().for_each(|problem| found.add(problem));
            let fits = match whole {
                Some(whole) if factor as i64 != 0 => whole % (factor as i64) == 0,
                Some(_) => false,
                None if factor < 1.0 => is_whole(1.0 / factor * number),
                None => is_whole(number / factor),
            };
            if !fits {
                let text = format!("should be a multiple of {}", shown(factor));
                found.add(self.problem(Kind::Invalid(value.clone()), &text));
            }
        }
        if let Some(minimum) = checks.minimum {
            range("Minimum boundary", minimum, None).into_iter().for_each(|problem| found.add(problem));
            let (least, exclusive) = (limit(minimum), checks.exclusive_minimum);
            if number < least || (exclusive && number == least) {
                let relation = if exclusive { "greater than" } else { "greater than or equal to" };
                let text = format!("should be {relation} {}", shown(minimum));
                found.add(self.problem(Kind::Invalid(value.clone()), &text));
            }
        }
        if let Some(maximum) = checks.maximum {
            range("Maximum boundary", maximum, None).into_iter().for_each(|problem| found.add(problem));
            let (most, exclusive) = (limit(maximum), checks.exclusive_maximum);
            if number > most || (exclusive && number == most) {
                let relation = if exclusive { "less than" } else { "less than or equal to" };
                let text = format!("should be {relation} {}", shown(maximum));
                found.add(self.problem(Kind::Invalid(value.clone()), &text));
            }
        }
        found
    }

    fn list(&mut self, node: &Node, checks: &Checks, items: &[Value], old: Option<&Value>) -> Found {
        let mut found = Found { matches: 1, ..Found::default() };
        if let Some(item) = &node.items {
            let old = old.map(Read::items).unwrap_or_default();
            for (at, value) in items.iter().enumerate() {
                // Only items that are told apart by keys are known again.
                let before = match &node.list {
                    List::Map(keys) => {
                        let same = |old: &&Value| keys.iter().all(|key| old.key(key) == value.key(key));
                        old.iter().find(same)
                    }
                    _ => None,
                };
                found.merge(self.step(&format!("[{at}]"), |walk| walk.value(item, value, before)));
            }
        }
        if let Some(min) = checks.min_items.filter(|min| (items.len() as u64) < *min) {
            let text = format!("should have at least {min} items");
            found.add(self.problem(Kind::Invalid(items.len().into()), &text));
        }
        if let Some(max) = checks.max_items.filter(|max| items.len() as u64 > *max) {
            let text = format!("should have at most {max} items");
            found.add(self.problem(Kind::TooMany(items.len(), max), &text));
        }
        found
    }

    fn one_of_values(&self, checks: &Checks, value: &Value, found: &mut Found) {
        let same = |known: &Value| match (known.as_f64(), value.as_f64()) {
            (Some(known), Some(value)) => known == value,
            _ => known == value,
        };
        if !checks.one_of_values.is_empty() && !checks.one_of_values.iter().any(same) {
            let print = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let known: Vec<String> = checks.one_of_values.iter().map(print).collect();
            let text = format!("should be one of [{}]", known.join(" "));
            found.add(self.problem(Kind::OneOf(value.clone(), known), &text));
        }
    }

    fn object(&mut self, node: &Node, checks: &Checks, fields: &Map<String, Value>, old: Option<&Value>) -> Found {
        let mut found = Found::default();
        let count = fields.len() as u64;
        if let Some(min) = checks.min_properties.filter(|min| count < *min) {
            let text = format!("should have at least {min} properties");
            found.add(self.problem(Kind::Invalid(fields.len().into()), &text));
            return found;
        }
        if let Some(max) = checks.max_properties.filter(|max| count > *max) {
            let text = format!("should have at most {max} properties");
            found.add(self.problem(Kind::TooMany(fields.len(), max), &text));
            return found;
        }
        let before = |name: &str| old.filter(|_| !node.atomic_map).and_then(|old| old.get(name));
        if let Additional::Node(additional) = &node.additional {
            let mut names: Vec<&String> =
                fields.keys().filter(|name| !node.properties.contains_key(name.as_str())).collect();
            names.sort_unstable();
            for name in names {
                found.merge(self.step(&format!(".{name}"), |walk| walk.value(additional, &fields[name], before(name))));
            }
        }
        for (name, field) in &node.properties {
            if let Some(value) = fields.get(&**name) {
                let step = if self.path.is_empty() { name.to_string() } else { format!(".{name}") };
                found.merge(self.step(&step, |walk| walk.value(field, value, before(name))));
            }
        }
        for name in checks.required.iter().filter(|name| !fields.contains_key(&***name)) {
            let field = format!("{}.{name}", self.path);
            found.add(Problem {
                text: format!("{field} in body is required"),
                field: Some(field),
                kind: Kind::Required,
            });
        }
        found
    }

    fn step(&mut self, step: &str, walk: impl FnOnce(&mut Walk) -> Found) -> Found {
        let length = self.path.len();
        self.path.push_str(step);
        let found = walk(self);
        self.path.truncate(length);
        found
    }
}

fn names(types: &[Type]) -> String {
    let names: Vec<&str> = types.iter().map(|type_| type_.name()).collect();
    names.join(",")
}

/// Whole within what a float can hold, as go-openapi counts it.
fn is_whole(number: f64) -> bool {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    const NEAR: f64 = 1e-9;
    if !number.is_finite() || number.abs() > EXACT {
        return false;
    }
    let (truncated, difference) = (number.trunc(), (number - number.trunc()).abs());
    number == truncated
        || (number != 0.0 && difference < NEAR * number.abs().max(truncated.abs()).max(f64::MIN_POSITIVE))
}

/// A float as Go prints it.
fn go_float(number: f64) -> String {
    let value = Value::from(number);
    if number.fract() == 0.0 && number.abs() < 1e21 { format!("{number:.0}") } else { value.to_string() }
}

/// The type and format that cannot hold a number; `None` where they can.
fn out_of_range(type_: Option<Type>, format: &str, number: f64, whole: Option<i64>) -> Option<String> {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    let fits = match type_ {
        Some(Type::Integer) => {
            let whole = whole.or_else(|| {
                (number.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&number)).then_some(number as i64)
            });
            match (format, whole) {
                (_, None) => false,
                ("int32", Some(whole)) => i32::try_from(whole).is_ok(),
                ("uint32", Some(whole)) => u32::try_from(whole).is_ok(),
                ("uint64", Some(whole)) => u64::try_from(whole).is_ok(),
                (_, Some(_)) => true,
            }
        }
        _ => !matches!(format, "float" | "float32") || number.abs() <= f64::from(f32::MAX),
    };
    let name = type_.unwrap_or(Type::Number).name();
    (!fits).then(|| match format {
        "" => format!("{name} (default format)"),
        format => format!("{name} with format {format}"),
    })
}

/// The defaults of a schema and of all below it.
pub fn defaults(node: &Node, path: &str, out: &mut Vec<Cause>) {
    if let Some(default) = &node.default {
        let at = format!("{path}.default");
        let mut pruned = default.clone();
        if !super::prune::prune_value(&mut pruned, node).is_empty() {
            out.push(Cause::invalid(&at, default, "must not have unknown fields"));
        }
        let before = out.len();
        embedded(node, default, &at, out);
        if out.len() == before {
            out.extend(check(node, default, None, &at));
        }
    }
    if let Some(item) = &node.items {
        defaults(item, &format!("{path}.items"), out);
    }
    for (name, field) in &node.properties {
        defaults(field, &format!("{path}.properties[{name}]"), out);
    }
}

/// Items that are there twice in a set, or in a list whose items have keys.
pub fn duplicates(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            for name in names {
                match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(field), _) => duplicates(field, &fields[name], &child(path, name), out),
                    (None, Additional::Node(field)) => {
                        duplicates(field, &fields[name], &format!("{path}[{name}]"), out)
                    }
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let keys: Option<Vec<Value>> = match &node.list {
                List::Atomic => None,
                List::Set => Some(items.clone()),
                List::Map(keys) => {
                    if let Some(at) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
                        let detail = "must be an object for an array of list-type map";
                        out.push(Cause::invalid(format!("{path}[{at}]"), &items[at], detail));
                        return;
                    }
                    let mut keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
                    keys.sort_unstable();
                    let of = |item: &Value| {
                        let own = |key: &&str| Some((key.to_string(), item.get(*key)?.clone()));
                        Value::Object(keys.iter().filter_map(own).collect())
                    };
                    Some(items.iter().map(of).collect())
                }
            };
            for (at, key) in keys.iter().flatten().enumerate() {
                // Only the second of many is told of.
                if keys.iter().flatten().take(at).filter(|other| *other == key).count() == 1 {
                    out.push(Cause::duplicate(format!("{path}[{at}]"), key));
                }
            }
            if let Some(item) = &node.items {
                for (at, value) in items.iter().enumerate() {
                    duplicates(item, value, &format!("{path}[{at}]"), out);
                }
            }
        }
        _ => {}
    }
}

/// Embedded objects say what they are, and have right metadata.
pub fn embedded(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            if node.embedded {
                embedded_meta(value, path, out);
            }
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            for name in names {
                match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(field), _) => embedded(field, &fields[name], &child(path, name), out),
                    (None, Additional::Node(field)) => embedded(field, &fields[name], &format!("{path}[{name}]"), out),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                for (at, value) in items.iter().enumerate() {
                    embedded(item, value, &format!("{path}[{at}]"), out);
                }
            }
        }
        _ => {}
    }
}

fn embedded_meta(object: &Value, path: &str, out: &mut Vec<Cause>) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for field in ["apiVersion", "kind"] {
        let at = child(path, field);
        let text = match object.get(field) {
            None => {
                out.push(Cause::required(at, ""));
                continue;
            }
            Some(Value::String(text)) => text,
            Some(other) => {
                out.push(Cause::invalid(at, other, "must be a string"));
                continue;
            }
        };
        if text.is_empty() {
            out.push(Cause::invalid(at, &"".into(), "must not be empty"));
        } else if field == "apiVersion" && text.matches('/').count() > 1 {
            out.push(Cause::invalid(at, &text.as_str().into(), &format!("unexpected GroupVersion string: {text}")));
        } else if field == "kind" {
            let texts = crate::validate::dns1035_label(&text.to_lowercase());
            if !texts.is_empty() {
                out.push(Cause::invalid(at, &text.as_str().into(), &format!("{MIXED}{}", texts.join(","))));
            }
        }
    }
    if object.has("metadata") {
        let mut metadata = object.clone();
        if metadata.text("metadata.name").is_empty() {
            // It need not have a name.
            metadata["metadata"]["name"] = "fakename".into();
        }
        let namespaced = !metadata.text("metadata.namespace").is_empty();
        let causes = crate::validate::metadata(&metadata, namespaced, crate::NameRule::PathSegment);
        out.extend(causes.into_iter().map(|cause| Cause { field: child(path, &cause.field), ..cause }));
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn told(schema: Value, old: Option<Value>, value: Value, want: &[&str]) {
        let node = Node::read(&json!({ "type": "object", "properties": { "f": schema } }));
        let old = old.map(|old| json!({ "f": old }));
        let causes = check(&node, &json!({ "f": value }), old.as_ref(), "");
        let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
        assert_eq!(texts, want);
    }

    #[test]
    fn values_are_held_to_types_and_limits() {
        let one = |schema: Value, value: Value, want: &str| told(schema, None, value, &[want]);
        one(
            json!({"type": "string"}),
            json!(1),
            r#"f: Invalid value: "integer": f in body must be of type string: "integer""#,
        );
        one(
            json!({"type": "integer", "minimum": 2}),
            json!(1),
            "f: Invalid value: 1: f in body should be greater than or equal to 2",
        );
        one(
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            "f: Invalid value: 0.7: f in body should be a multiple of 0.5",
        );
        one(json!({"type": "string", "maxLength": 4}), json!("äöüßx"), "f: Too long: may not be more than 4 bytes");
        one(
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"f: Unsupported value: "c": supported values: "a", "b""#,
        );
        one(json!({"type": "object", "required": ["a"]}), json!({}), "f.a: Required value");
        one(
            json!({"type": "object", "maxProperties": 1}),
            json!({"a": 1, "b": 2}),
            "f: Too many: 2: must have at most 1 item",
        );
        one(
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", null]),
            r#"f[1]: Invalid value: "null": f[1] in body must be of type string: "null""#,
        );
        one(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"f: Invalid value: "boolean": f in body must be of type integer,string: "boolean""#,
        );
        one(
            json!({"type": "integer", "format": "int32"}),
            json!(2147483648u32),
            r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in f"#,
        );
        told(json!({"type": "integer"}), None, json!(2.0), &[]);
        told(
            json!({"type": "string", "format": "date"}),
            None,
            json!("2024-02-30"),
            &[r#"f: Invalid value: "2024-02-30": f in body must be of type date: "2024-02-30""#],
        );
        told(
            json!({"type": "integer"}),
            None,
            json!(1.5),
            &[
                r#"f: Invalid value: "number": f in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in f"#,
            ],
        );
    }

    #[test]
    fn of_alternatives_the_nearest_is_told() {
        let one_of = json!({"type": "integer", "oneOf": [{"minimum": 5}, {"multipleOf": 2}]});
        told(
            one_of.clone(),
            None,
            json!(1),
            &[
                r#"<nil>: Invalid value: "": "f" must validate one and only one schema (oneOf). Found none valid"#,
                "f: Invalid value: 1: f in body should be greater than or equal to 5",
            ],
        );
        told(
            one_of,
            None,
            json!(6),
            &[
                r#"<nil>: Invalid value: "": "f" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        );
        told(
            json!({"type": "string", "not": {"enum": ["no"]}}),
            None,
            json!("no"),
            &[r#"<nil>: Invalid value: "": "f" must not validate the schema (not)"#],
        );
    }

    #[test]
    fn what_did_not_change_stays_allowed() {
        let schema =
            json!({"type": "object", "properties": {"a": {"maximum": 1, "type": "integer"}, "b": {"type": "integer"}}});
        told(schema.clone(), Some(json!({"a": 5, "b": 1})), json!({"a": 5, "b": 2}), &[]);
        told(
            schema,
            Some(json!({"a": 5})),
            json!({"a": 6}),
            &["f.a: Invalid value: 6: f.a in body should be less than or equal to 1"],
        );
    }

    #[test]
    fn items_are_there_once() {
        #[track_caller]
        fn check(schema: Value, value: Value, want: &[&str]) {
            let mut out = Vec::new();
            duplicates(&Node::read(&schema), &value, "f", &mut out);
            assert_eq!(out.iter().map(Cause::to_string).collect::<Vec<_>>(), want);
        }
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
        check(set, json!([1, 2, 1, 1]), &["f[2]: Duplicate value: 1"]);
        let map =
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "proto"]});
        check(
            map,
            json!([{"proto": "U", "port": 1}, {"port": 1, "proto": "U"}]),
            &[r#"f[1]: Duplicate value: {"port":1,"proto":"U"}"#],
        );
    }
}
