//! kubectl's JSONPath: templates with fields, indices, slices, wildcards, filters, `..`, unions and `range`.
//! Pure: a template and a value give a text.

use serde_json::Value;

use crate::codec;

/// Deepest nesting of `range`.
const RANGE_DEPTH_MAX: usize = 32;

/// A parsed template.
#[derive(Debug)]
pub struct JsonPath(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Debug)]
enum Step {
    Field(String),
    Fields(Vec<String>),
    All,
    Descend,
    Slice(Option<i64>, Option<i64>, i64),
    Indices(Vec<i64>),
    Filter(Box<Filter>),
}

#[derive(Debug)]
struct Filter {
    left: Operand,
    /// `None`: the left side must exist.
    right: Option<(String, Operand)>,
}

#[derive(Debug)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
}

impl JsonPath {
    /// Reads a template, or a bare path.
    ///
    /// # Errors
    /// What is wrong with it, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        // A bare path means the path in braces.
        let text = if text.contains('{') || text.is_empty() {
            text.to_string()
        } else {
            format!("{{{}{text}}}", if text.starts_with(['.', '[', '$']) { "" } else { "." })
        };
        let mut rest = text.as_str();
        let nodes = nodes(&mut rest, 0)?;
        Ok(JsonPath(nodes))
    }

    /// What the template is of a value.
    ///
    /// # Errors
    /// An index behind the end of a list, in Kubernetes' words.
    pub fn print(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        print_nodes(&self.0, value, &mut out)?;
        Ok(out)
    }

    /// The values that the first path of the template leads to; none where it leads nowhere.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let path = self.0.iter().find_map(|node| match node {
            Node::Path(path) => Some(path),
            _ => None,
        });
        path.and_then(|path| select(path, value).ok()).unwrap_or_default()
    }
}

fn nodes(rest: &mut &str, depth: usize) -> Result<Vec<Node>, String> {
    if depth > RANGE_DEPTH_MAX {
        return Err("too many nested ranges".to_string());
    }
    let mut out = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            out.push(Node::Text(std::mem::take(rest).to_string()));
            break;
        };
        if open > 0 {
            out.push(Node::Text(rest[..open].to_string()));
        }
        let inside = &rest[open + 1..];
        let close = closing(inside).ok_or("unclosed action")?;
        let action = inside[..close].trim();
        *rest = &inside[close + 1..];
        match action {
            "end" if depth == 0 => return Err("not in range, nothing to end".to_string()),
            "end" => return Ok(out),
            action => match action.strip_prefix("range ") {
                Some(path) => {
                    let path = steps(path.trim())?;
                    out.push(Node::Range(path, nodes(rest, depth + 1)?));
                }
                None if action.starts_with(['"', '\'']) => out.push(Node::Text(literal(action)?)),
                None => out.push(Node::Path(steps(action)?)),
            },
        }
    }
    match depth {
        0 => Ok(out),
        _ => Err("unclosed range, expected {end}".to_string()),
    }
}

/// Where the brace that is open is closed, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn literal(text: &str) -> Result<String, String> {
    let quote = text.chars().next().unwrap_or('"');
    let inside =
        text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)).ok_or("unterminated quoted string")?;
    let mut out = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => return Err("unterminated quoted string".to_string()),
            },
            (c, false) => out.push(c),
        }
    }
    Ok(out)
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim().strip_prefix(['$', '@']).unwrap_or(text.trim());
    if !text.is_empty() && !text.starts_with(['.', '[', '$', '@']) {
        return Err(format!("unrecognized identifier {text}"));
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            out.push(Step::Descend);
            rest = after;
            if !rest.starts_with('[') && !rest.is_empty() {
                rest = field(rest, &mut out)?;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = if after.is_empty() || after.starts_with('[') { after } else { field(after, &mut out)? };
        } else if let Some(after) = rest.strip_prefix('[') {
            let close = bracket(after).ok_or("unterminated array")?;
            out.push(subscript(after[..close].trim())?);
            rest = &after[close + 1..];
        } else {
            return Err(format!("unexpected {rest:?}"));
        }
    }
    Ok(out)
}

/// A field name, its dots escaped with a backslash.
fn field<'a>(text: &'a str, out: &mut Vec<Step>) -> Result<&'a str, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' | ' ' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    out.push(if name == "*" { Step::All } else { Step::Field(name) });
    Ok(text[end..].trim_start())
}

fn bracket(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in unquoted(text) {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return Some(at),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The characters that are in no quotes, and where they are; the quotes themselves are not among them.
fn unquoted(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    text.char_indices().filter(move |(_, c)| match quote {
        Some(open) => {
            quote = quote.filter(|_| *c != open);
            false
        }
        None => {
            quote = Some(*c).filter(|c| matches!(c, '"' | '\''));
            quote.is_none()
        }
    })
}

fn subscript(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return Ok(Step::Filter(Box::new(parse_filter(filter)?)));
    }
    if text.starts_with(['"', '\'']) {
        return Ok(Step::Fields(text.split(',').map(|part| literal(part.trim())).collect::<Result<_, _>>()?));
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("invalid array index {text}"));
    let optional = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [one] => Ok(Step::Indices(one.split(',').map(number).collect::<Result<_, _>>()?)),
        [from, to] => Ok(Step::Slice(optional(from)?, optional(to)?, 1)),
        [from, to, step] => match optional(step)?.unwrap_or(1) {
            step @ 1.. => Ok(Step::Slice(optional(from)?, optional(to)?, step)),
            _ => Err("step must be > 0".to_string()),
        },
        _ => Err(format!("invalid array index {text}")),
    }
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    // Longer operators first, so that `<=` is not taken for `<`.
    const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];
    for (at, _) in unquoted(text) {
        if let Some(operator) = OPERATORS.iter().find(|operator| text[at..].starts_with(**operator)) {
            let right = operand(text[at + operator.len()..].trim())?;
            return Ok(Filter { left: operand(text[..at].trim())?, right: Some((operator.to_string(), right)) });
        }
    }
    Ok(Filter { left: operand(text.trim())?, right: None })
}

fn operand(text: &str) -> Result<Operand, String> {
    Ok(match text {
        text if text.starts_with(['@', '$', '.']) => Operand::Path(steps(text)?),
        text if text.starts_with(['"', '\'']) => Operand::Value(Value::String(literal(text)?)),
        text => Operand::Value(serde_json::from_str(text).map_err(|_| format!("unrecognized identifier {text}"))?),
    })
}

fn print_nodes(nodes: &[Node], here: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let found: Vec<String> = select(path, here)?.into_iter().map(text).collect();
                out.push_str(&found.join(" "));
            }
            Node::Range(path, inside) => {
                for item in select(path, here)? {
                    print_nodes(inside, item, out)?;
                }
            }
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => {
            // Go prints maps with their keys in order.
            let mut sorted = other.clone();
            sorted.sort_all_objects();
            String::from_utf8(codec::to_json(&sorted)).unwrap_or_default()
        }
    }
}

fn select<'a>(path: &[Step], value: &'a Value) -> Result<Vec<&'a Value>, String> {
    let mut found = vec![value];
    for step in path {
        let mut next = Vec::new();
        for value in found {
            apply(step, value, &mut next)?;
        }
        found = next;
    }
    Ok(found)
}

fn apply<'a>(step: &Step, value: &'a Value, out: &mut Vec<&'a Value>) -> Result<(), String> {
    match step {
        Step::Field(name) => out.extend(value.get(name)),
        Step::Fields(names) => out.extend(names.iter().filter_map(|name| value.get(name))),
        Step::All => out.extend(children(value)),
        Step::Descend => descend(value, out),
        Step::Indices(indices) => {
            let Some(items) = value.as_array() else { return Ok(()) };
            for index in indices {
                let at = if *index < 0 { items.len() as i64 + index } else { *index };
                match usize::try_from(at).ok().and_then(|at| items.get(at)) {
                    Some(item) => out.push(item),
                    None => return Err(format!("array index out of bounds: index {index}, length {}", items.len())),
                }
            }
        }
        Step::Slice(from, to, step) => {
            let Some(items) = value.as_array() else { return Ok(()) };
            let len = items.len() as i64;
            let place = |at: i64| (if at < 0 { len + at } else { at }).clamp(0, len) as usize;
            let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(len)));
            out.extend(items.get(from..to.max(from)).into_iter().flatten().step_by(*step as usize));
        }
        Step::Filter(filter) => {
            for child in children(value) {
                if filter.holds(child)? {
                    out.push(child);
                }
            }
        }
    }
    Ok(())
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    for child in children(value) {
        descend(child, out);
    }
}

impl Filter {
    fn holds(&self, value: &Value) -> Result<bool, String> {
        let left = self.left.values(value)?;
        let Some((operator, right)) = &self.right else { return Ok(!left.is_empty()) };
        let right = right.values(value)?;
        let (Some(left), Some(right)) = (left.first(), right.first()) else { return Ok(false) };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            _ => None,
        };
        Ok(match operator.as_str() {
            "==" => left == right || order.is_some_and(|order| order.is_eq()),
            "!=" => left != right && order.is_none_or(|order| order.is_ne()),
            "<" => order.is_some_and(|order| order.is_lt()),
            "<=" => order.is_some_and(|order| order.is_le()),
            ">" => order.is_some_and(|order| order.is_gt()),
            _ => order.is_some_and(|order| order.is_ge()),
        })
    }
}

impl Operand {
    fn values<'a>(&'a self, value: &'a Value) -> Result<Vec<&'a Value>, String> {
        match self {
            Operand::Path(path) => select(path, value),
            Operand::Value(constant) => Ok(vec![constant]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(template: &str, want: &str) {
        let pods = json!({"items": [
            {"metadata": {"name": "alpha", "labels": {"app": "web", "a.b/c": "x"}}, "spec": {"n": 1}},
            {"metadata": {"name": "beta", "labels": {"app": "web"}}, "spec": {"n": 2}},
            {"metadata": {"name": "gamma", "labels": {"app": "db"}}, "spec": {"n": 3}}]});
        let got = JsonPath::parse(template).and_then(|path| path.print(&pods)).unwrap_or_else(|why| format!("! {why}"));
        assert_eq!(got, want, "{template}");
    }

    #[test]
    fn templates() {
        check("{.items[*].metadata.name}", "alpha beta gamma");
        check(".items[0].metadata.name", "alpha");
        check("{.items[-1:].metadata.name}", "gamma");
        check("{.items[0:2].metadata.name}", "alpha beta");
        check("{.items[0].spec}", r#"{"n":1}"#);
        check("{.items[0].nothing}", "");
        check(r#"{range .items[*]}{.metadata.name}{"\t"}{.spec.n}{"\n"}{end}"#, "alpha\t1\nbeta\t2\ngamma\t3\n");
        check(r#"{.items[?(@.metadata.labels.app=="db")].metadata.name}"#, "gamma");
        check("{.items[?(@.spec.n>1)].metadata.name}", "beta gamma");
        check(r"{.items[0].metadata.labels.a\.b/c}", "x");
        check("{.items[0].metadata.labels['app']}", "web");
        check("{..name}", "alpha beta gamma");
        check("name: {.items[0].metadata.name}", "name: alpha");
        check("{.items[7]}", "! array index out of bounds: index 7, length 3");
        check("{.items", "! unclosed action");
        check("{range .items[*]}", "! unclosed range, expected {end}");
    }
}
