//! What schemas of custom resources may say. Their defaults are checked where custom resources are; the rest is here.

use serde_json::Value;

use super::check::{Causes, optional_one_of};
use super::internal;
use super::read::Read;
use crate::{Cause, custom};

/// `schema` is the `openAPIV3Schema` of a version, `has_status` whether status has its own subresource.
pub fn check(out: &mut Causes, schema: &Value, path: &str, has_status: bool) {
    if has_status {
        out.extend(root_beside_status(schema, path));
    }
    if schema.flag("nullable") {
        out.push(Cause::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    // Schemas that Kubernetes cannot read as structural are told of by what follows.
    if !has_lists_of_items(schema) {
        let mut structural = Vec::new();
        invariants(&mut structural, schema, Level::Root, path);
        complete(&mut structural, schema, path);
        structural.sort_by_cached_key(Cause::to_string);
        if structural.is_empty() {
            structural = custom::check_defaults(schema, path);
        }
        out.extend(structural);
    }
    open_api(out, schema, path, &Place { root: true, ..Place::default() });
}

/// The first field that says something of the whole, where the status is validated for itself.
fn root_beside_status(schema: &Value, path: &str) -> Option<Cause> {
    const ALLOWED: [&str; 22] = [
        "Description",
        "Type",
        "Format",
        "Title",
        "Maximum",
        "ExclusiveMaximum",
        "Minimum",
        "ExclusiveMinimum",
        "MaxLength",
        "MinLength",
        "Pattern",
        "MaxItems",
        "MinItems",
        "UniqueItems",
        "MultipleOf",
        "Required",
        "Items",
        "Properties",
        "ExternalDocs",
        "Example",
        "XPreserveUnknownFields",
        "XValidations",
    ];
    let shown = internal::shown("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps", schema);
    let is_set = |value: &Value| !value.is_nothing() && value != false && value != "";
    for (field, _) in shown.as_object()?.iter().filter(|(_, value)| is_set(value)) {
        if field == "Type" && schema.text("type") != "object" {
            let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is \
                          enabled";
            return Some(Cause::invalid(format!("{path}.type"), schema.at("type"), detail));
        }
        if !ALLOWED.contains(&field.as_str()) {
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                ALLOWED.join(" ")
            );
            return Some(Cause::invalid(path, &shown, &detail));
        }
    }
    None
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Schemas below this one, each with where it is.
fn below(schema: &Value) -> Vec<(String, &Value)> {
    let mut out = Vec::new();
    for field in ["items", "additionalProperties", "not"] {
        if schema.at(field).is_object() {
            out.push((format!(".{field}"), schema.at(field)));
        }
    }
    for field in ["properties", "definitions", "patternProperties"] {
        out.extend(schema.at(field).entries().into_iter().map(|(name, value)| (format!(".{field}[{name}]"), value)));
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        out.extend(schema.list(field).iter().enumerate().map(|(at, value)| (format!(".{field}[{at}]"), value)));
    }
    out
}

/// `items` may be a list in JSON schema, and other things that no structural schema has.
fn has_lists_of_items(schema: &Value) -> bool {
    const NEVER: [&str; 6] = ["$ref", "definitions", "dependencies", "patternProperties", "id", "additionalItems"];
    schema.at("items").is_array()
        || NEVER.iter().any(|field| !schema.key(field).is_nothing())
        || schema.flag("uniqueItems")
        || below(schema).iter().any(|(_, below)| has_lists_of_items(below))
}

fn is_int_or_string(schema: &Value) -> bool {
    schema.key("x-kubernetes-int-or-string") == &Value::Bool(true)
}

fn keeps_unknown(schema: &Value) -> bool {
    schema.key("x-kubernetes-preserve-unknown-fields") == &Value::Bool(true)
}

fn is_embedded(schema: &Value) -> bool {
    schema.key("x-kubernetes-embedded-resource") == &Value::Bool(true)
}

/// Of types, metadata and extensions.
fn invariants(out: &mut Causes, schema: &Value, level: Level, path: &str) {
    let type_ = schema.text("type");
    if type_ == "array" && schema.at("items").is_null() {
        out.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    if schema.at("items").is_object() {
        invariants(out, schema.at("items"), Level::Item, &format!("{path}.items"));
    }
    for (name, property) in schema.at("properties").entries() {
        invariants(out, property, Level::Field, &format!("{path}.properties[{name}]"));
    }
    let additional = schema.at("additionalProperties");
    if !additional.is_null() {
        let path = format!("{path}.additionalProperties");
        if level == Level::Root {
            out.push(Cause::forbidden(&path, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(out, additional, Level::Field, &path);
        }
    }
    if is_int_or_string(schema) {
        for (is, field) in
            [(keeps_unknown(schema), "preserve-unknown-fields"), (is_embedded(schema), "embedded-resource")]
        {
            if is {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                out.push(Cause::invalid(format!("{path}.x-kubernetes-{field}"), &true.into(), detail));
            }
        }
    }
    let either = is_int_or_string(schema);
    values(out, schema, path, either && is_either(schema.list("anyOf")), either && first_is_either(schema));
    types(out, schema, level, path);
    metadata(out, schema, level, path);
}

fn types(out: &mut Causes, schema: &Value, level: Level, path: &str) {
    let type_ = schema.text("type");
    let path_of_type = format!("{path}.type");
    if is_embedded(schema) && type_ != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        out.push(match type_ {
            "" => Cause::required(path_of_type.as_str(), detail),
            _ => Cause::invalid(path_of_type.as_str(), &type_.into(), detail),
        });
    } else if type_.is_empty() && !is_int_or_string(schema) && !keeps_unknown(schema) {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(Cause::required(path_of_type.as_str(), detail));
    }
    if is_embedded(schema) && !schema.at("additionalProperties").is_null() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        out.push(Cause::forbidden(format!("{path}.additionalProperties"), detail));
    }
    if level == Level::Root && !matches!(type_, "" | "object") {
        out.push(Cause::invalid(path_of_type, &type_.into(), "must be object at the root"));
    }
}

fn metadata(out: &mut Causes, schema: &Value, level: Level, path: &str) {
    let of_object = level == Level::Root || is_embedded(schema);
    for field in ["kind", "apiVersion"] {
        let property = schema.at("properties").key(field);
        if of_object && !property.is_null() && property.text("type") != "string" {
            let type_ = Value::from(property.text("type"));
            out.push(Cause::invalid(format!("{path}.properties[{field}].type"), &type_, "must be string"));
        }
    }
    let metadata = schema.at("properties.metadata");
    if !metadata.is_null() {
        let path = format!("{path}.properties[metadata]");
        if of_object && metadata.text("type") != "object" {
            out.push(Cause::invalid(format!("{path}.type"), &metadata.text("type").into(), "must be object"));
        }
        let allowed = |field: &str| match field {
            "type" | "default" => true,
            "properties" => {
                let names = metadata.at("properties").entries();
                names.iter().all(|(name, _)| matches!(name.as_str(), "name" | "generateName"))
            }
            _ => false,
        };
        let says_more = metadata.entries().iter().any(|(field, value)| !value.is_nothing() && !allowed(field));
        if level == Level::Root && says_more {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                          specified";
            out.push(Cause::forbidden(path, detail));
        }
    }
    if is_embedded(schema) && !keeps_unknown(schema) && schema.at("properties").is_nothing() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        out.push(Cause::required(format!("{path}.properties"), detail));
    }
}

/// `anyOf: [{type: integer}, {type: string}]`
fn is_either(list: &[Value]) -> bool {
    let types: Vec<&str> = list.iter().map(|schema| schema.text("type")).collect();
    types == ["integer", "string"] && list.iter().all(|schema| schema.entries().len() == 1)
}

fn first_is_either(schema: &Value) -> bool {
    schema.list("allOf").first().is_some_and(|first| is_either(first.list("anyOf")))
}

/// What is only about values: `anyOf` and its like, which say nothing of structure.
fn values(out: &mut Causes, schema: &Value, path: &str, skip_any: bool, skip_first: bool) {
    for field in ["anyOf", "allOf", "oneOf"] {
        if field == "anyOf" && skip_any {
            continue;
        }
        for (at, nested) in schema.list(field).iter().enumerate() {
            let either = field == "allOf" && at == 0 && skip_first;
            self::nested(out, nested, &format!("{path}.{field}[{at}]"), either);
        }
    }
    if schema.at("not").is_object() {
        nested(out, schema.at("not"), &format!("{path}.not"), false);
    }
}

fn nested(out: &mut Causes, schema: &Value, path: &str, skip_any: bool) {
    values(out, schema, path, skip_any, false);
    if schema.at("items").is_object() {
        nested(out, schema.at("items"), &format!("{path}.items"), false);
    }
    for (name, property) in schema.at("properties").entries() {
        nested(out, property, &format!("{path}.properties[{name}]"), false);
    }
    const EMPTY: &str = "must be empty to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FALSE: &str = "must be false to be structural";
    let forbidden = [
        ("type", EMPTY),
        ("additionalProperties", UNDEFINED),
        ("default", UNDEFINED),
        ("title", EMPTY),
        ("description", EMPTY),
        ("nullable", FALSE),
        ("x-kubernetes-preserve-unknown-fields", FALSE),
        ("x-kubernetes-embedded-resource", FALSE),
        ("x-kubernetes-int-or-string", FALSE),
        ("x-kubernetes-list-map-keys", EMPTY),
        ("x-kubernetes-list-type", UNDEFINED),
        ("x-kubernetes-map-type", UNDEFINED),
    ];
    for (field, detail) in forbidden {
        let value = schema.key(field);
        if !value.is_null() && value != false && value != "" {
            out.push(Cause::forbidden(format!("{path}.{field}"), detail));
        }
    }
    if !schema.key("x-kubernetes-validations").is_nothing() && !path.ends_with(']') {
        out.push(Cause::forbidden(format!("{path}.x-kubernetes-validations"), EMPTY));
    }
    if schema.at("properties").key("metadata").is_object() {
        let path = format!("{path}.properties[metadata]");
        out.push(Cause::forbidden(path, "must not be specified in a nested context"));
    }
}

/// Fields that `anyOf` and its like talk of are specified outside of them too. Kubernetes looks at the root only.
fn complete(out: &mut Causes, schema: &Value, path: &str) {
    for field in ["allOf", "anyOf", "oneOf"] {
        for (at, nested) in schema.list(field).iter().enumerate() {
            mirrored(out, nested, schema, path, &format!("{path}.{field}[{at}]"));
        }
    }
    if schema.at("not").is_object() {
        mirrored(out, schema.at("not"), schema, path, &format!("{path}.not"));
    }
}

fn mirrored(out: &mut Causes, nested: &Value, schema: &Value, path: &str, from: &str) {
    let because = format!("because it is defined in {from}");
    if nested.at("items").is_object() {
        match schema.at("items").is_null() {
            true => out.push(Cause::required(format!("{path}.items"), &because)),
            false => {
                let (path, from) = (format!("{path}.items"), format!("{from}.items"));
                mirrored(out, nested.at("items"), schema.at("items"), &path, &from);
            }
        }
    }
    for (name, property) in nested.at("properties").entries() {
        let (path, from) = (format!("{path}.properties[{name}]"), format!("{from}.properties[{name}]"));
        let other = schema.at("properties").key(name);
        match other.is_null() {
            true => out.push(Cause::required(&path, &format!("because it is defined in {from}"))),
            false => mirrored(out, property, other, &path, &from),
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (at, deeper) in nested.list(field).iter().enumerate() {
            mirrored(out, deeper, schema, path, &format!("{from}.{field}[{at}]"));
        }
    }
    if nested.at("not").is_object() {
        mirrored(out, nested.at("not"), schema, path, &format!("{from}.not"));
    }
}

/// Where in the whole a schema is.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Within `metadata`, `kind` or `apiVersion` of an object.
    meta: bool,
    /// Why there are no defaults here.
    no_defaults: Option<String>,
}

fn open_api(out: &mut Causes, schema: &Value, path: &str, place: &Place) {
    const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
    let type_ = schema.text("type");
    let forbid = |out: &mut Causes, field: &str, detail: &str| {
        out.push(Cause::forbidden(format!("{path}.{field}"), detail));
    };
    if !type_.is_empty() {
        optional_one_of(out, schema.at("type"), format_args!("{path}.type"), TYPES);
    }
    if let Some(reason) = place.no_defaults.as_ref().filter(|_| !schema.at("default").is_null()) {
        forbid(out, "default", &format!("must not be set {reason}"));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if !schema.key(field).is_null() && schema.key(field) != "" {
            forbid(out, field, &format!("{field} is not supported"));
        }
    }
    if type_ == "null" {
        forbid(out, "type", "type cannot be set to null, use nullable as an alternative");
    }
    if schema.at("items").is_array() {
        forbid(out, "items", "items must be a schema object and not an array");
    }
    if place.meta && is_embedded(schema) {
        forbid(out, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
    if schema.flag("uniqueItems") {
        forbid(out, "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    let additional = schema.at("additionalProperties");
    if !additional.is_null() && additional != true && !schema.at("properties").is_nothing() {
        forbid(out, "additionalProperties", "additionalProperties and properties are mutual exclusive");
    }
    let pattern = schema.text("pattern");
    if let Some(why) = custom::pattern_error(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {why}");
        out.push(Cause::invalid(format!("{path}.pattern"), &pattern.into(), &detail));
    }
    let place_is_root = place.root;
    for (step, below) in below(schema) {
        let mut place = Place { root: false, ..place.clone() };
        if step == ".additionalProperties" && place.meta {
            place.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        let of_object = place_is_root || is_embedded(schema);
        if let Some(name) = step.strip_prefix(".properties[").and_then(|name| name.strip_suffix(']'))
            && of_object
            && matches!(name, "metadata" | "kind" | "apiVersion")
        {
            place.meta = true;
            if place_is_root {
                place.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        if !step.starts_with(".patternProperties") {
            open_api(out, below, &format!("{path}{step}"), &place);
        }
    }
    for (at, item) in schema.list("items").iter().enumerate() {
        open_api(out, item, &format!("{path}.items[{at}]"), &Place { root: false, ..place.clone() });
    }
    lists_and_maps(out, schema, path);
    rules(out, schema, path);
}

/// The extensions that say how lists and maps merge.
fn lists_and_maps(out: &mut Causes, schema: &Value, path: &str) {
    let type_ = schema.text("type");
    let at = |field: &str| format!("{path}.x-kubernetes-{field}");
    let [map, list] = ["x-kubernetes-map-type", "x-kubernetes-list-type"].map(|field| schema.key(field));
    let items = schema.at("items");
    if schema.key("x-kubernetes-preserve-unknown-fields") == false {
        out.push(Cause::invalid(at("preserve-unknown-fields"), &false.into(), "must be true or undefined"));
    }
    let of_type = |out: &mut Causes, given: &Value, wanted: &str, which: &str| {
        if given.is_null() || type_ == wanted {
            return true;
        }
        let detail = format!("must be {wanted} if x-kubernetes-{which}-type is specified");
        out.push(match type_ {
            "" => Cause::required(format!("{path}.type"), &detail),
            _ => Cause::invalid(format!("{path}.type"), &type_.into(), &detail),
        });
        false
    };
    of_type(out, map, "object", "map");
    optional_one_of(out, map, at("map-type"), &["atomic", "granular"]);
    if of_type(out, list, "array", "list") && list == "set" {
        let item = items.text("type");
        let (field, right) = match item {
            "array" => ("list-type", matches!(items.key("x-kubernetes-list-type").as_str(), None | Some("atomic"))),
            "object" => ("map-type", items.key("x-kubernetes-map-type") == "atomic"),
            _ => ("", true),
        };
        if !right {
            let path = format!("{path}.items.x-kubernetes-{field}");
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            out.push(Cause::invalid(path, items.key("x-kubernetes-list-type"), detail));
        }
    }
    optional_one_of(out, list, at("list-type"), &["atomic", "set", "map"]);
    let keys = schema.key("x-kubernetes-list-map-keys");
    if !keys.is_nothing() {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list.as_str() {
            None => out.push(Cause::required(at("list-type"), detail)),
            Some("map") => {}
            Some(_) => out.push(Cause::invalid(at("list-type"), list, detail)),
        }
    }
    if list == "map" {
        map_list(out, items, keys, path);
    }
    if matches!(list.as_str(), Some("set" | "map")) && items.is_object() {
        keyed_items(out, items, keys, list.as_str().unwrap_or_default(), path);
    }
}

fn map_list(out: &mut Causes, items: &Value, keys: &Value, path: &str) {
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_nothing() {
        out.push(Cause::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    match items {
        Value::Null => {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            return out.push(Cause::required(format!("{path}.items"), detail));
        }
        Value::Array(_) => {
            let detail = "must only have a single schema if x-kubernetes-list-type is map";
            return out.push(Cause::invalid(format!("{path}.items"), items, detail));
        }
        _ => {}
    }
    if items.text("type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return out.push(Cause::invalid(format!("{path}.items.type"), &items.text("type").into(), detail));
    }
    for (at, key) in keys.items().iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = items.at("properties").key(name);
        if property.is_null() {
            out.push(Cause::invalid(&keys_path, keys, "entries must all be names of item properties"));
        } else if matches!(property.text("type"), "array" | "object") {
            let path = format!("{path}.items.properties[{name}].type");
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            out.push(Cause::invalid(path, items.at("type"), detail));
        }
        if keys.items()[..at].contains(key) {
            out.push(Cause::invalid(&keys_path, keys, "must not contain duplicate entries"));
        }
    }
}

fn keyed_items(out: &mut Causes, items: &Value, keys: &Value, list: &str, path: &str) {
    if items.flag("nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        out.push(Cause::forbidden(format!("{path}.items.nullable"), &detail));
    }
    if list != "map" {
        return;
    }
    for key in keys.items() {
        let name = key.as_str().unwrap_or_default();
        let property = items.at("properties").key(name);
        if property.is_null() {
            continue;
        }
        let path = format!("{path}.items.properties[{name}]");
        if !items.list("required").contains(key) && property.at("default").is_null() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                          property";
            out.push(Cause::required(format!("{path}.default"), detail));
        }
        if property.flag("nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            out.push(Cause::forbidden(format!("{path}.nullable"), detail));
        }
    }
}

/// What `x-kubernetes-validations` says around its rules.
fn rules(out: &mut Causes, schema: &Value, path: &str) {
    const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (at, rule) in schema.key("x-kubernetes-validations").items().iter().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{at}]");
        let (text, message) = (rule.text("rule").trim(), rule.text("message"));
        let path_of = |field: &str| format!("{path}.{field}");
        if text.is_empty() {
            out.push(Cause::required(path_of("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            out.push(Cause::invalid(path_of("message"), &message.into(), "must be non-empty if specified"));
        } else if breaks(message.trim()) {
            out.push(Cause::invalid(path_of("message"), &message.into(), "must not contain line breaks"));
        } else if breaks(text) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            out.push(Cause::required(path_of("message"), detail));
        }
        let expression = rule.text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            out.push(Cause::required(path_of("messageExpression"), detail));
        }
        optional_one_of(out, rule.at("reason"), path_of("reason"), REASONS);
        let given = rule.text("fieldPath");
        let mut invalid = |detail: &str| out.push(Cause::invalid(path_of("fieldPath"), &given.into(), detail));
        if !given.is_empty() && given.trim().is_empty() {
            invalid("must be non-empty if specified");
        }
        if breaks(given) {
            invalid("must not contain line breaks");
        }
        if !given.is_empty() && field(schema, given, true).is_err() {
            invalid("must be a valid path");
        }
    }
}

/// The schema at a path of dots and `['names']`; `numbers` may go into lists.
pub fn field<'a>(schema: &'a Value, path: &str, numbers: bool) -> Result<&'a Value, String> {
    const NONE: &str = "does not refer to a valid field";
    let (mut schema, mut rest) = (schema, path);
    while let Some(first) = rest.chars().next() {
        let (name, after, bracket) = match first {
            '.' => {
                let end = rest[1..].find(['.', '[']).map_or(rest.len(), |at| at + 1);
                (&rest[1..end], &rest[end..], false)
            }
            '[' => {
                let end = rest.find(']').ok_or_else(|| "unexpected end of JSON path".to_owned())?;
                (&rest[1..end], &rest[end + 1..], true)
            }
            _ => {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                return Err(format!("expected [ or . but got: {}", &rest[..end]));
            }
        };
        rest = after;
        let quoted = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
        let name = match (bracket, quoted) {
            (true, None) if !numbers => return Err("array notation is not allowed".to_owned()),
            (true, None) => {
                schema = schema.at("items");
                if schema.is_null() || name.parse::<usize>().is_err() {
                    return Err(NONE.to_owned());
                }
                continue;
            }
            (true, Some(name)) | (false, Some(name)) => name,
            (false, None) => name,
        };
        let property = schema.at("properties").key(name);
        schema = match property.is_null() {
            false => property,
            true if schema.at("additionalProperties").is_object() => schema.at("additionalProperties"),
            true => return Err(NONE.to_owned()),
        };
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_root_says_little_beside_a_status() {
        let check = |schema: Value, expected: Option<&str>| {
            let cause = root_beside_status(&schema, "schema");
            let told = cause.map(|cause| format!("{} {}", cause.field, cause.message.split(": ").nth(2).unwrap_or("")));
            assert_eq!(told.as_deref(), expected, "{schema}");
        };
        check(json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}), None);
        check(
            json!({"type": "string"}),
            Some(
                "schema.type only \"object\" is allowed as the type at the root of the schema if the status subresource \
                 is enabled",
            ),
        );
        let cause = root_beside_status(&json!({"type": "object", "anyOf": [{"required": ["a"]}]}), "schema");
        let message = cause.map(|cause| cause.message).unwrap_or_default();
        assert!(message.starts_with("Invalid value: {\"ID\":\"\",\"Schema\":\"\""), "{message}");
        assert!(message.ends_with("fields are allowed at the root of the schema if the status subresource is enabled"));
    }
}
