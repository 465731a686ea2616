//! Label and field selectors: parse, match, print. The errors are those of `k8s.io/apimachinery/pkg/labels` and `fields`.

use std::fmt;

use serde_json::Value;

use crate::{go, meta};

/// Terms that must all hold of an object's labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector(pub Vec<Requirement>);

/// One term: `key`, `!key`, `key = a`, `key in (a, b)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    pub key: String,
    pub op: Op,
    /// As written; sets are sorted.
    pub values: Vec<String>,
}

/// The operator of a [`Requirement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Exists,
    DoesNotExist,
    Equals,
    NotEquals,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// `get` looks a label up.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| term.holds(get(&term.key)))
    }

    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        Parser::new(text).selector()
    }

    /// Reads a `metav1.LabelSelector`, as objects carry them; `None` where an operator is not known. An empty one matches
    /// everything.
    pub fn of_object(selector: &Value) -> Option<LabelSelector> {
        let mut terms = Vec::new();
        if let Some(labels) = selector["matchLabels"].as_object() {
            for (key, value) in labels {
                let values = vec![value.as_str()?.to_string()];
                terms.push(Requirement { key: key.clone(), op: Op::Equals, values });
            }
        }
        for term in meta::items_at(selector, &["matchExpressions"]) {
            terms.push(Requirement::of_object(term)?);
        }
        Some(LabelSelector(terms))
    }
}

impl Requirement {
    /// Reads a term with `key`, `operator` and `values`, as the label and node selectors of objects have it.
    pub fn of_object(term: &Value) -> Option<Requirement> {
        let op = match term["operator"].as_str()? {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            "Gt" => Op::GreaterThan,
            "Lt" => Op::LessThan,
            _ => return None,
        };
        let values = meta::items_at(term, &["values"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
        Some(Requirement { key: term["key"].as_str()?.to_string(), op, values })
    }

    fn holds(&self, label: Option<&str>) -> bool {
        let named = |label: &str| self.values.iter().any(|value| value == label);
        match self.op {
            Op::Exists => label.is_some(),
            Op::DoesNotExist => label.is_none(),
            Op::Equals | Op::In => label.is_some_and(named),
            Op::NotEquals | Op::NotIn => !label.is_some_and(named),
            Op::GreaterThan => numbers(label, &self.values).is_some_and(|(label, bound)| label > bound),
            Op::LessThan => numbers(label, &self.values).is_some_and(|(label, bound)| label < bound),
        }
    }
}

/// Whether a node is what one of a node selector's terms (`nodeSelectorTerms`) asks for: its labels, its name. A term that asks for
/// nothing matches nothing.
pub fn selects_node(selector: &Value, node: &Value) -> bool {
    meta::items_at(selector, &["nodeSelectorTerms"]).iter().any(|term| {
        let (labels, fields) = (meta::items_at(term, &["matchExpressions"]), meta::items_at(term, &["matchFields"]));
        (!labels.is_empty() || !fields.is_empty())
            && hold(labels, |key| meta::entry(node, "labels", key))
            && hold(fields, |key| (key == "metadata.name").then(|| meta::name(node)))
    })
}

fn hold<'a>(terms: &[Value], get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let wanted: Option<Vec<_>> = terms.iter().map(Requirement::of_object).collect();
    wanted.is_some_and(|wanted| LabelSelector(wanted).matches(get))
}

fn numbers(label: Option<&str>, values: &[String]) -> Option<(i64, i64)> {
    Some((label?.parse().ok()?, values.first()?.parse().ok()?))
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let (key, values) = (&term.key, term.values.join(","));
            match term.op {
                Op::Exists => write!(f, "{comma}{key}"),
                Op::DoesNotExist => write!(f, "{comma}!{key}"),
                Op::Equals => write!(f, "{comma}{key}={values}"),
                Op::NotEquals => write!(f, "{comma}{key}!={values}"),
                Op::In => write!(f, "{comma}{key} in ({values})"),
                Op::NotIn => write!(f, "{comma}{key} notin ({values})"),
                Op::GreaterThan => write!(f, "{comma}{key}>{values}"),
                Op::LessThan => write!(f, "{comma}{key}<{values}"),
            }?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Open,
    Close,
    Comma,
    Not,
    Op(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::Not => "!",
            Token::Op(op) => op,
            Token::End => "",
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Parser {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let symbols: [(&str, Token); 10] = [
                ("==", Token::Op("==")),
                ("!=", Token::Op("!=")),
                ("=", Token::Op("=")),
                (">", Token::Op(">")),
                ("<", Token::Op("<")),
                ("!", Token::Not),
                ("(", Token::Open),
                (")", Token::Close),
                (",", Token::Comma),
                (" ", Token::End),
            ];
            if c.is_ascii_whitespace() {
                rest = &rest[1..];
                continue;
            }
            match symbols.into_iter().find(|(symbol, _)| rest.starts_with(symbol)) {
                Some((symbol, token)) => {
                    tokens.push(token);
                    rest = &rest[symbol.len()..];
                }
                None => {
                    let special =
                        |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
                    let end = rest.find(special).unwrap_or(rest.len());
                    tokens.push(Token::Word(rest[..end].to_string()));
                    rest = &rest[end..];
                }
            }
        }
        tokens.push(Token::End);
        Parser { tokens, at: 0 }
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, String> {
        let mut terms = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Not => {
                    terms.push(self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
                    match self.next() {
                        Token::End => break,
                        Token::Comma if !matches!(self.peek(), Token::Word(_) | Token::Not) => {
                            return Err(format!("found '{}', expected: identifier after ','", self.peek().text()));
                        }
                        Token::Comma => {}
                        other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
                    }
                }
                Token::End => break,
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
            }
        }
        // Kubernetes keeps requirements sorted by key.
        terms.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(LabelSelector(terms))
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == &Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        check_key(&key)?;
        let op = match self.peek().clone() {
            Token::End | Token::Comma => {
                let op = if negated { Op::DoesNotExist } else { Op::Exists };
                return Ok(Requirement { key, op, values: Vec::new() });
            }
            _ if negated => return Ok(Requirement { key, op: Op::DoesNotExist, values: Vec::new() }),
            Token::Op("=" | "==") => Op::Equals,
            Token::Op("!=") => Op::NotEquals,
            Token::Op(">") => Op::GreaterThan,
            Token::Op("<") => Op::LessThan,
            Token::Word(word) if word == "in" => Op::In,
            Token::Word(word) if word == "notin" => Op::NotIn,
            Token::Word(word) if word == "gt" => Op::GreaterThan,
            Token::Word(word) if word == "lt" => Op::LessThan,
            other => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text())),
        };
        self.next();
        let values = match op {
            Op::In | Op::NotIn => self.set()?,
            _ => vec![self.value()?],
        };
        if matches!(op, Op::GreaterThan | Op::LessThan) && values[0].parse::<i64>().is_err() {
            return Err(format!(
                "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                go::quote(&values[0])
            ));
        }
        for (i, value) in values.iter().enumerate() {
            check_value(&key, i, value)?;
        }
        Ok(Requirement { key, op, values })
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek().clone() {
            Token::End | Token::Comma => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Ok(word)
            }
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = Vec::new();
        let mut wants_value = true;
        loop {
            match self.next() {
                Token::Word(word) if wants_value => {
                    values.push(word);
                    wants_value = false;
                }
                Token::Comma => {
                    if wants_value {
                        values.push(String::new());
                    }
                    wants_value = true;
                }
                Token::Close => {
                    if wants_value {
                        values.push(String::new());
                    }
                    break;
                }
                other if wants_value && values.is_empty() => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", other.text()));
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

/// The text for a bad qualified name, as `validation.IsQualifiedName` says it.
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const PREFIX_PART: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is wrong with a label key, annotation key or finalizer; empty when nothing is.
pub fn qualified_name_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                if prefix.len() > 253 {
                    errors.push("prefix part must be no more than 253 bytes".to_string());
                }
                if !is_dns_subdomain(prefix) {
                    errors.push(format!("prefix part {PREFIX_PART}"));
                }
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                NAME_PART.trim_start_matches("name part ")
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_string());
    }
    if !is_name_part(name) {
        errors.push(NAME_PART.to_string());
    }
    errors
}

/// What is wrong with a label value; empty when nothing is.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes".to_string());
    }
    if !value.is_empty() && !is_name_part(value) {
        errors.push(LABEL_VALUE.to_string());
    }
    errors
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?` parts joined by dots. Length is not looked at.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.split('.').all(|label| {
        let bytes = label.as_bytes();
        let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(|b| edge(b) || *b == b'-')
    })
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn check_key(key: &str) -> Result<(), String> {
    match qualified_name_errors(key).as_slice() {
        [] => Ok(()),
        errors => Err(format!("<nil>: Invalid value: {}: {}", go::quote(key), errors.join("; "))),
    }
}

fn check_value(key: &str, index: usize, value: &str) -> Result<(), String> {
    match label_value_errors(value).as_slice() {
        [] => Ok(()),
        errors => Err(format!("values[{index}][{key}]: Invalid value: {}: {}", go::quote(value), errors.join("; "))),
    }
}

/// Terms that must all hold of an object's selectable fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

/// `field = value` or `field != value`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl FieldSelector {
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// `get` gives a field's value as text, `""` where it is unset.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|term| (get(&term.field) == term.value) == term.equal)
    }

    /// The value that a field must have, where the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, equal, value) =
                split_term(&part).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            let value = unescape(value).map_err(|why| format!("invalid field selector: {why}"))?;
            terms.push(FieldTerm { field: field.to_string(), equal, value });
        }
        terms.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(FieldSelector(terms))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let op = if term.equal { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{op}{value}", term.field)?;
        }
        Ok(())
    }
}

/// The one name that a field selector text asks for, if it does and the name can stand in a path.
pub(crate) fn one_name(text: &str) -> Option<String> {
    let selector = FieldSelector::parse(text).ok()?;
    let name = selector.exact("metadata.name")?;
    let in_path = !name.is_empty() && name != "." && name != ".." && !name.contains('/') && !name.contains('%');
    in_path.then(|| name.to_string())
}

fn split_terms(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    for i in 0..part.len() {
        let Some(rest) = part.get(i..) else { continue };
        for (op, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(op) {
                return Some((&part[..i], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid escape sequence: \\{c}")),
                None => return Err("invalid escape sequence: \\".to_string()),
            },
            // Go prints the number of the character.
            '=' => return Err(format!("unescaped character in value: {}", u32::from('='))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(selector: &str, labels: &[(&str, &str)], want: &str) {
        let got = match LabelSelector::parse(selector) {
            Err(why) => why,
            Ok(parsed) => {
                let hit = parsed.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v));
                format!("{parsed} {hit}")
            }
        };
        assert_eq!(got, want);
    }

    #[test]
    fn label_selectors() {
        let labels = [("a", "b"), ("n", "5")];
        check("a=b", &labels, "a=b true");
        check("a==b,n", &labels, "a=b,n true");
        check("!a", &labels, "!a false");
        check("a in (c, b)", &labels, "a in (b,c) true");
        check("x notin (c)", &labels, "x notin (c) true");
        check("n>4", &labels, "n>4 true");
        check("x!=1", &labels, "x!=1 true");
        check("a in", &labels, "unable to parse requirement: found '' expected: '('");
        check("a=b=c", &labels, "found '=', expected: ',' or 'end of string'");
        check("!", &labels, "unable to parse requirement: found '', expected: identifier");
        check("Bad Key=1", &labels, "unable to parse requirement: found 'Key', expected: in, notin, =, ==, !=, gt, lt");
        check("a in (b", &labels, "unable to parse requirement: found '', expected: ',' or ')'");
    }

    #[test]
    fn field_selectors() {
        let parsed = FieldSelector::parse("metadata.name=x,status.phase!=Failed").unwrap();
        assert!(parsed.matches(|field| if field == "metadata.name" { "x" } else { "" }));
        assert_eq!(parsed.to_string(), "metadata.name=x,status.phase!=Failed");
        assert_eq!(FieldSelector::parse("a").unwrap_err(), "invalid selector: 'a'; can't understand 'a'");
        assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().exact("a"), Some("b,c"));
        assert_eq!(one_name("metadata.name=x").as_deref(), Some("x"));
    }
}
