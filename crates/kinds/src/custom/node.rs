//! A schema of custom resources, read once: what a value may be and what is done with it. Built from the
//! `openAPIV3Schema` of a definition that was validated; never fails, so that whatever was accepted is served.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::formats;
use crate::builtin::read::Read;

/// One schema and all below it.
#[derive(Debug, Default)]
pub struct Node {
    /// The types a value may have: none where any is right, two for `x-kubernetes-int-or-string`.
    pub types: &'static [Type],
    /// `""` where there is none, or where Kubernetes does not know it.
    pub format: Arc<str>,
    /// No format says more of a string than that it is one.
    pub plain_text: bool,
    pub nullable: bool,
    pub default: Option<Value>,
    /// By name, which is also the order in which they are checked.
    pub properties: BTreeMap<Arc<str>, Node>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub keeps_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-list-type`
    pub list: List,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// Everything a value must satisfy beyond its type.
    pub checks: Option<Box<Checks>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub enum Additional {
    /// None, or `false`.
    #[default]
    No,
    /// `true`: values of which nothing is known.
    Any,
    Node(Box<Node>),
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum List {
    #[default]
    Atomic,
    Set,
    Map(Vec<Arc<str>>),
}

/// The keywords that restrict values.
#[derive(Debug, Default)]
pub struct Checks {
    pub one_of_values: Vec<Value>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<Arc<str>>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Node>,
}

/// A regular expression, and its text as the definition has it.
#[derive(Debug)]
pub struct Pattern {
    pub text: Arc<str>,
    /// `None` for what only Go's dialect takes: it matches nothing then.
    pub regex: Option<regex::Regex>,
}

/// Bytes that one compiled pattern may take. Definitions come from clients.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }

    fn of(name: &str) -> &'static [Type] {
        match name {
            "object" => &[Type::Object],
            "array" => &[Type::Array],
            "string" => &[Type::String],
            "integer" => &[Type::Integer],
            "number" => &[Type::Number],
            "boolean" => &[Type::Boolean],
            _ => &[],
        }
    }
}

impl Node {
    /// Reads a `JSONSchemaProps`.
    pub fn read(schema: &Value) -> Node {
        let extension = |name: &str| schema.key(&format!("x-kubernetes-{name}"));
        let int_or_string = extension("int-or-string") == &Value::Bool(true);
        let types = if int_or_string { &[Type::Integer, Type::String][..] } else { Type::of(schema.text("type")) };
        let format = schema.text("format");
        let properties = schema
            .at("properties")
            .entries()
            .into_iter()
            .map(|(name, schema)| (name.as_str().into(), Node::read(schema)));
        Node {
            types,
            format: if formats::is_known(format) { format.into() } else { "".into() },
            plain_text: matches!(format, "" | "byte"),
            nullable: schema.flag("nullable"),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            properties: properties.collect(),
            additional: match schema.at("additionalProperties") {
                Value::Bool(true) => Additional::Any,
                Value::Object(_) => Additional::Node(Box::new(Node::read(schema.at("additionalProperties")))),
                _ => Additional::No,
            },
            items: schema.at("items").is_object().then(|| Box::new(Node::read(schema.at("items")))),
            keeps_unknown: extension("preserve-unknown-fields") == &Value::Bool(true),
            embedded: extension("embedded-resource") == &Value::Bool(true),
            list: match extension("list-type").as_str() {
                Some("set") => List::Set,
                Some("map") => {
                    let keys = extension("list-map-keys").items().iter().filter_map(Value::as_str);
                    List::Map(keys.map(Arc::from).collect())
                }
                _ => List::Atomic,
            },
            atomic_map: extension("map-type") == "atomic",
            checks: Checks::read(schema).map(Box::new),
        }
    }

    /// The schema of a field, declared or additional.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Node(node) => Some(node),
            _ => None,
        })
    }
}

impl Checks {
    fn read(schema: &Value) -> Option<Checks> {
        const KEYWORDS: [&str; 18] = [
            "enum",
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "maxProperties",
            "minProperties",
            "required",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        KEYWORDS.iter().any(|keyword| !schema.at(keyword).is_null()).then_some(())?;
        let number = |keyword: &str| schema.at(keyword).as_f64();
        let count = |keyword: &str| schema.at(keyword).as_u64();
        let nodes = |keyword: &str| schema.list(keyword).iter().map(Node::read).collect();
        Some(Checks {
            one_of_values: schema.list("enum").to_vec(),
            maximum: number("maximum"),
            exclusive_maximum: schema.flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: schema.flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: Some(schema.text("pattern")).filter(|text| !text.is_empty()).map(Pattern::new),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: schema.list("required").iter().filter_map(Value::as_str).map(Arc::from).collect(),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema.at("not").is_object().then(|| Node::read(schema.at("not"))),
        })
    }
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        let regex = regex::RegexBuilder::new(&ascii_classes(&unquoted(text))).size_limit(PATTERN_BYTES_MAX).build();
        Pattern { text: text.into(), regex: regex.ok() }
    }
}

/// Go's `\Q..\E` spelled out.
pub fn unquoted(pattern: &str) -> Cow<'_, str> {
    let mut rest = pattern;
    let mut out = String::new();
    while let Some((before, quoted)) = rest.split_once("\\Q") {
        let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
        out.push_str(before);
        out.push_str(&regex::escape(literal));
        rest = after;
    }
    if out.is_empty() && rest == pattern { Cow::Borrowed(pattern) } else { Cow::Owned(out + rest) }
}

/// Go's Perl classes know ASCII only.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
            Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
            Some('b') => out.push_str(r"(?-u:\b)"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        #[track_caller]
        fn check(pattern: &str, text: &str, want: bool) {
            let pattern = Pattern::new(pattern);
            assert_eq!(pattern.regex.map(|regex| regex.is_match(text)), Some(want), "{}", pattern.text);
        }
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "\u{663}", false);
        check(r"^[\w.-]+$", "a_b.c-1", true);
        check(r"^[\w]+$", "é", false);
        check(r"^\Qa.b\E$", "a.b", true);
        check(r"^\Qa.b\E$", "axb", false);
        check(r"\bfoo\b", "a foo b", true);
        check("^[^\\s]+$", "a b", false);
    }
}
