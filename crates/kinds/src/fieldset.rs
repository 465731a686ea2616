//! Sets of fields, as `metadata.managedFields[].fieldsV1` writes them: what they hold, their algebra, both directions of
//! the format. Knows nothing of schemas or objects; `typed` makes sets of objects.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::kind::go_quote;

/// Fields of one object. A parent is in the set only when it was put in itself: owning `spec.replicas` is not owning
/// `spec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// In order, each element once. Most sets have few, and are read and built in order.
    nodes: Vec<(Element, Node)>,
}

/// One step of a path.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of a struct or a key of a map: `f:name`.
    Field(String),
    /// The item of a list with these key fields, sorted by name: `k:{"name":"x"}`. Never empty.
    Key(Vec<(String, Value)>),
    /// The item of a set: `v:"x"`.
    Item(Value),
    /// The item at this place: `i:0`.
    Index(i64),
}

/// The way to a field from the root of its object; prints as `.spec.containers[name="c"].image`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path(pub Vec<Element>);

/// Which fields a strategy lets a request own.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Filter {
    #[default]
    All,
    /// Everything but these and what is below them.
    Except(Set),
    /// Only what is at or below one of these; `None` stands for any element.
    Only(Vec<Vec<Option<Element>>>),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Node {
    member: bool,
    below: Set,
}

/// The children of a set that is being made.
#[derive(Debug, Default)]
pub(crate) struct Children(Vec<(Element, Node)>);

impl Children {
    pub fn push(&mut self, element: Element, member: bool, below: Set) {
        self.0.push((element, Node { member, below }));
    }
}

/// A path element that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl Set {
    /// Reads `fieldsV1`. Elements of a type that is not known are dropped with all below them.
    pub fn parse(fields: &Value) -> Result<Set, ParseError> {
        let Some(fields) = fields.as_object() else {
            return Err(ParseError("fieldsV1 must be an object".to_owned()));
        };
        Ok(Set::parse_node(fields)?.below)
    }

    fn parse_node(fields: &Map<String, Value>) -> Result<Node, ParseError> {
        let mut node = Node::default();
        for (key, value) in fields {
            if key == "." {
                node.member = true;
                continue;
            }
            let Some(element) = Element::parse(key)? else { continue };
            let empty = Map::new();
            let child = Set::parse_node(value.as_object().unwrap_or(&empty))?;
            node.below.node(element).merge(child);
        }
        // What has nothing below it is there for itself.
        node.member |= node.below.nodes.is_empty();
        Ok(node)
    }

    /// Writes `fieldsV1`, elements in Kubernetes' order.
    pub fn print(&self) -> Value {
        Value::Object(self.print_into(false))
    }

    fn print_into(&self, member: bool) -> Map<String, Value> {
        let mut out = Map::with_capacity(self.nodes.len() + usize::from(member && !self.nodes.is_empty()));
        if member && !self.nodes.is_empty() {
            out.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in &self.nodes {
            out.insert(element.print(), Value::Object(node.below.print_into(node.member)));
        }
        out
    }

    /// A set of plain field paths: `Set::of(&["status", "metadata.labels"])`.
    pub fn of(paths: &[&str]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.split('.').map(Element::field).collect::<Vec<_>>());
        }
        set
    }

    /// The empty path, the object itself, is nobody's and is not added.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = match self.find(first) {
            Ok(at) => &mut self.nodes[at].1,
            Err(_) => self.node(first.clone()),
        };
        match rest {
            [] => node.member = true,
            rest => node.below.insert(rest),
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.get(first).is_some_and(|node| node.below.has(rest)),
        }
    }

    /// Is this direct child a member?
    pub(crate) fn has_member(&self, element: &Element) -> bool {
        self.get(element).is_some_and(|node| node.member)
    }

    /// The part of the set below a direct child, when there is one.
    pub(crate) fn below(&self, element: &Element) -> Option<&Set> {
        self.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// The direct children: whether each is a member itself and what is below it.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&Element, bool, &Set)> {
        self.nodes.iter().map(|(element, node)| (element, node.member, &node.below))
    }

    pub(crate) fn set_child(&mut self, element: Element, member: bool, below: Set) {
        if member || !below.is_empty() {
            *self.node(element) = Node { member, below };
        }
    }

    /// A set of direct children that come in any order, each once.
    pub(crate) fn of_children(mut children: Children) -> Set {
        if !children.0.is_sorted_by(|(a, _), (b, _)| a < b) {
            children.0.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        }
        Set { nodes: children.0 }
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where an element is, or would be.
    fn find(&self, element: &Element) -> Result<usize, usize> {
        match self.nodes.last() {
            Some((last, _)) if last < element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|(other, _)| other.cmp(element)),
        }
    }

    fn get(&self, element: &Element) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.nodes[at].1)
    }

    /// The node of an element, made where it is not there.
    fn node(&mut self, element: Element) -> &mut Node {
        let at = self.find(&element).unwrap_or_else(|at| {
            self.nodes.insert(at, (element, Node::default()));
            at
        });
        &mut self.nodes[at].1
    }

    #[must_use]
    pub fn union(self, other: Set) -> Set {
        if self.is_empty() {
            return other;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let mut theirs = other.nodes.into_iter().peekable();
        for (element, mut node) in self.nodes {
            while let Some(before) = theirs.next_if(|(other, _)| *other < element) {
                nodes.push(before);
            }
            if let Some((_, same)) = theirs.next_if(|(other, _)| *other == element) {
                node.merge(same);
            }
            nodes.push((element, node));
        }
        nodes.extend(theirs);
        Set { nodes }
    }

    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (element, ours) in &self.nodes {
            if let Some(theirs) = other.get(element) {
                let below = ours.below.intersection(&theirs.below);
                out.set_child(element.clone(), ours.member && theirs.member, below);
            }
        }
        out
    }

    /// What is in this set and not in the other. A parent in the other takes nothing from its children here.
    #[must_use]
    pub fn difference(self, other: &Set) -> Set {
        self.without(other, |ours, theirs| {
            ours.member &= !theirs.member;
            ours.below = std::mem::take(&mut ours.below).difference(&theirs.below);
        })
    }

    /// As [`Set::difference`], but a member of the other takes all below it too.
    #[must_use]
    pub fn difference_deep(self, other: &Set) -> Set {
        self.without(other, |ours, theirs| match theirs.member {
            true => *ours = Node::default(),
            false => ours.below = std::mem::take(&mut ours.below).difference_deep(&theirs.below),
        })
    }

    fn without(mut self, other: &Set, take: impl Fn(&mut Node, &Node)) -> Set {
        let mut emptied = false;
        for (element, theirs) in &other.nodes {
            if let Ok(at) = self.find(element) {
                let ours = &mut self.nodes[at].1;
                take(ours, theirs);
                emptied |= ours.is_empty();
            }
        }
        if emptied {
            self.nodes.retain(|(_, node)| !node.is_empty());
        }
        self
    }

    /// All members: on each level first the members themselves, then what is below each child.
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Path>) {
        for (element, node) in &self.nodes {
            if node.member {
                let mut path = prefix.clone();
                path.push(element.clone());
                out.push(Path(path));
            }
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect(prefix, out);
            prefix.pop();
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    fn merge(&mut self, other: Node) {
        self.member |= other.member;
        self.below = std::mem::take(&mut self.below).union(other.below);
    }
}

impl Filter {
    /// What of the set may be owned.
    #[must_use]
    pub fn apply(&self, set: Set) -> Set {
        match self {
            Filter::All => set,
            Filter::Except(fields) => set.difference_deep(fields),
            Filter::Only(patterns) => {
                let patterns: Vec<&[Option<Element>]> = patterns.iter().map(Vec::as_slice).collect();
                only(&set, &patterns)
            }
        }
    }

    /// Everything but plain field paths: `Filter::except(&["status"])`.
    pub fn except(paths: &[&str]) -> Filter {
        Filter::Except(Set::of(paths))
    }

    /// Only plain field paths and what is below them; `*` stands for any item: `spec.containers.*.resources`.
    pub fn only(paths: &[&str]) -> Filter {
        let element = |step: &str| (step != "*").then(|| Element::field(step));
        Filter::Only(paths.iter().map(|path| path.split('.').map(element).collect()).collect())
    }
}

fn only(set: &Set, patterns: &[&[Option<Element>]]) -> Set {
    let mut out = Set::default();
    for (element, node) in &set.nodes {
        let matching = patterns.iter().filter_map(|pattern| pattern.split_first());
        let rests: Vec<&[Option<Element>]> = matching
            .filter(|(first, _)| first.as_ref().is_none_or(|first| first == element))
            .map(|(_, rest)| rest)
            .collect();
        if rests.is_empty() {
            continue;
        }
        let whole = rests.iter().any(|rest| rest.is_empty());
        let below = if whole { node.below.clone() } else { only(&node.below, &rests) };
        out.set_child(element.clone(), node.member, below);
    }
    out
}

impl Element {
    pub fn field(name: impl Into<String>) -> Element {
        Element::Field(name.into())
    }

    /// `None` when the type of the element is not known.
    pub fn parse(text: &str) -> Result<Option<Element>, ParseError> {
        let bad = |what: &str| ParseError(format!("{what}: {text}"));
        if text.len() < 2 {
            return Err(bad("key must be 2 characters long"));
        }
        let Some((kind, rest)) = text.split_at_checked(2).filter(|(kind, _)| kind.ends_with(':')) else {
            return Err(bad("missing colon"));
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|e| ParseError(e.to_string()));
        Ok(Some(match kind {
            "f:" => Element::field(rest),
            "v:" => Element::Item(json()?),
            "i:" => Element::Index(rest.parse().map_err(|_| bad("not an index"))?),
            "k:" => match json()? {
                Value::Object(fields) => Element::key(fields.into_iter().collect()),
                _ => return Err(bad("not an object")),
            },
            _ => return Ok(None),
        }))
    }

    pub fn print(&self) -> String {
        match self {
            Element::Field(name) => ["f:", name].concat(),
            Element::Item(value) => {
                let mut out = "v:".to_owned();
                go_json(&mut out, value);
                out
            }
            Element::Index(at) => format!("i:{at}"),
            Element::Key(fields) => {
                let mut out = String::new();
                print_key(&mut out, fields.iter().map(|(name, value)| (&**name, value)));
                out
            }
        }
    }

    pub(crate) fn key(mut fields: Vec<(String, Value)>) -> Element {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Element::Key(fields)
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Item(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Item(a), Element::Item(b)) => compare_values(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let pairs = a.iter().zip(b);
                let differing = pairs.map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare_values(&a.1, &b.1)));
                differing.into_iter().find(|o| o.is_ne()).unwrap_or(a.len().cmp(&b.len()))
            }
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={}", Plain(value))).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Element::Item(value) => write!(f, "[={}]", Plain(value)),
            Element::Index(at) => write!(f, "[{at}]"),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

/// A value inside a printed path.
struct Plain<'a>(&'a Value);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::String(text) => f.write_str(&go_quote(text)),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| Plain(item).to_string()).collect();
                write!(f, "[{}]", items.join(","))
            }
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| write!(f, "{name}={}", Plain(value))),
            Value::Bool(_) | Value::Number(_) => write!(f, "{}", crate::strategic::go_print(self.0)),
        }
    }
}

/// Are two values the same to Go: numbers by value, whatever their notation, maps in any order?
pub(crate) fn same_values(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_values(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_values(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Writes the element of an item with these keys, which are in order.
pub(crate) fn print_key<'v>(out: &mut String, fields: impl Iterator<Item = (&'v str, &'v Value)>) {
    let mut before = "k:{";
    for (name, value) in fields {
        out.push_str(before);
        go_json_text(out, name);
        out.push(':');
        go_json(out, value);
        before = ",";
    }
    out.push('}');
}

/// The total order of values that sorts sets: numbers, strings, booleans, lists, maps, null.
pub(crate) fn compare_values(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let differing = a.iter().zip(b).map(|(a, b)| compare_values(a, b)).find(|o| o.is_ne());
            differing.unwrap_or(a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let sorted = |map: &Map<String, Value>| {
                let mut fields: Vec<(String, Value)> = map.clone().into_iter().collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                fields
            };
            Element::Key(sorted(a)).cmp(&Element::Key(sorted(b)))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
    }
}

/// A value as Go's JSON encoder writes it inside a path element: `<`, `>` and `&` escaped.
fn go_json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => go_json_text(out, text),
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or(0.0);
            match float.fract() == 0.0 && float.abs() < 1e21 {
                true => out.push_str(&format!("{float:.0}")),
                false => out.push_str(&number.to_string()),
            }
        }
        other => out.push_str(&other.to_string()),
    }
}

fn go_json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(json: &str) -> Set {
        Set::parse(&serde_json::from_str(json).expect("test JSON")).expect("test set")
    }

    #[track_caller]
    fn check(got: &Set, want: &str) {
        assert_eq!(got.print().to_string(), want);
    }

    #[test]
    fn reads_and_prints_in_kubernetes_order() {
        for text in [
            r#"{}"#,
            r#"{"f:a":{}}"#,
            r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"a\"":{},"v:\"b\"":{}},"f:labels":{"f:x":{}}}}"#,
            r#"{"f:l":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}"#,
            r#"{"f:l":{"i:0":{},"i:1":{"f:a":{}}}}"#,
            r#"{"f:l":{"v:7.011111100000011e+46":{}}}"#,
        ] {
            check(&set(text), text);
        }
        check(&set(r#"{"f:b":{"x:1":{}},"f:a":{".":{}},"f:c":{"f:d":{}}}"#), r#"{"f:a":{},"f:b":{},"f:c":{"f:d":{}}}"#);
        check(&set(r#"{"k:{\"b\":1,\"a\":2.0}":{}}"#), r#"{"k:{\"a\":2,\"b\":1}":{}}"#);
        let mut odd = Set::default();
        odd.insert(&[Element::Item("a<b".into())]);
        check(&odd, r#"{"v:\"a\\u003cb\"":{}}"#);
        let bad = |text: &str| Set::parse(&serde_json::from_str(text).unwrap()).map_err(|e| e.to_string());
        assert_eq!(bad(r#"{"data":{}}"#), Err("missing colon: data".to_owned()));
        assert_eq!(bad("[]"), Err("fieldsV1 must be an object".to_owned()));
    }

    #[test]
    fn algebra() {
        let a = set(r#"{"f:a":{".":{},"f:x":{},"f:y":{}},"f:b":{}}"#);
        let b = set(r#"{"f:a":{".":{},"f:x":{}},"f:c":{}}"#);
        check(&a.clone().union(b.clone()), r#"{"f:a":{".":{},"f:x":{},"f:y":{}},"f:b":{},"f:c":{}}"#);
        check(&a.intersection(&b), r#"{"f:a":{".":{},"f:x":{}}}"#);
        check(&a.clone().difference(&b), r#"{"f:a":{"f:y":{}},"f:b":{}}"#);
        check(&a.clone().difference(&Set::of(&["a"])), r#"{"f:a":{"f:x":{},"f:y":{}},"f:b":{}}"#);
        check(&a.clone().difference_deep(&Set::of(&["a"])), r#"{"f:b":{}}"#);
        check(&a.clone().difference_deep(&Set::of(&["a.x"])), r#"{"f:a":{".":{},"f:y":{}},"f:b":{}}"#);
    }

    #[test]
    fn filters() {
        let a = set(r#"{"f:spec":{"f:c":{"k:{\"name\":\"x\"}":{".":{},"f:image":{},"f:resources":{"f:limits":{}}}}}}"#);
        let only = Filter::only(&["spec.c.*.resources"]);
        check(
            &only.apply(a.clone()),
            r#"{"f:spec":{"f:c":{"k:{\"name\":\"x\"}":{".":{},"f:resources":{"f:limits":{}}}}}}"#,
        );
        check(&Filter::except(&["spec"]).apply(a.clone()), "{}");
        check(&Filter::All.apply(a.clone()), &a.print().to_string());
    }

    #[test]
    fn paths_print_as_in_conflicts() {
        let a = set(
            r#"{"f:s":{"f:a":{},"f:c":{"k:{\"name\":\"c\"}":{".":{},"f:args":{}}},"f:z":{},"f:v":{"v:1":{},"i:2":{}}}}"#,
        );
        let paths: Vec<String> = a.paths().iter().map(Path::to_string).collect();
        assert_eq!(paths.join(" "), r#".s.a .s.z .s.c[name="c"] .s.c[name="c"].args .s.v[=1] .s.v[2]"#);
    }
}
