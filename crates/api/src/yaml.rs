//! YAML as Kubernetes reads and writes it: the YAML 1.1 of go-yaml, with its words for booleans, its numbers, its errors
//! and its way to lay out text. Parsing and layout are libyaml's; what is here is what go-yaml makes of them. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::io::{Chain, Read};
use std::panic::AssertUnwindSafe;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libyaml_safer::{
    Emitter, Encoding, Error, ErrorKind, Event, EventData, MappingStyle, Mark, Parser, ScalarStyle, SequenceStyle,
};
use serde_json::{Map, Number, Value};

use crate::go;

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 256;
/// Most nodes that aliases may stand for, whatever the document's size.
const ALIASED_NODES_MAX: usize = 100_000;

/// What may stand before a text in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What one document holds.
#[derive(Debug, Default, PartialEq)]
pub struct Document {
    /// Keys are sorted, as they are after a way through Go's maps.
    pub value: Value,
    /// Keys that were set before: `line 3: key "a" already set in map`. The last one counts.
    pub duplicates: Vec<String>,
}

/// The first document of a stream; what follows it is not looked at. No document is `null`.
pub fn read(text: &[u8]) -> Result<Document, String> {
    with_whole_tags(text, |text| Ok(Reader::new(text)?.document()?.unwrap_or_default()))
}

/// All documents of a stream, those that hold nothing left out.
pub fn read_all(text: &[u8]) -> Result<Vec<Value>, String> {
    with_whole_tags(text, |text| {
        let mut reader = Reader::new(text)?;
        let mut all = Vec::new();
        while let Some(document) = reader.document()? {
            if !document.value.is_null() {
                all.push(document.value);
            }
        }
        Ok(all)
    })
}

/// Tags of one text whose letters are looked at again; each costs another reading.
const TAGS_MAX: usize = 64;

/// Reads a text, and where that fails, reads it with the tags that go-yaml sees in it: to go-yaml `,`, `[` and `]` are letters of
/// a tag (`[!!str, a]` holds one text, of type `str,`), the scanner here ends it there and refuses what follows. So they are
/// written as escapes, which stand for the same letters.
fn with_whole_tags<T>(text: &[u8], read: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let first = read(text);
    if first.is_ok() || tags(text).next().is_none() {
        return first;
    }
    let mut whole = text.to_vec();
    for _ in 0..TAGS_MAX {
        // What may only be a tag says that it is one where it holds what no tag may hold.
        let mut probe = whole.clone();
        for tag in tags(&whole) {
            let ends = probe[tag].iter_mut().filter(|byte| ends_tag(**byte));
            ends.for_each(|byte| *byte = b'^');
        }
        let Some(at) = broken_tag(&probe) else { break };
        let Some(tag) = tags(&whole).find(|tag| tag.start == at) else { break };
        let escaped = whole[tag.clone()].iter().flat_map(|byte| match byte {
            b',' => b"%2C".to_vec(),
            b'[' => b"%5B".to_vec(),
            b']' => b"%5D".to_vec(),
            other => vec![*other],
        });
        let escaped: Vec<u8> = escaped.collect();
        whole.splice(tag, escaped);
    }
    if whole == text { first } else { read(&whole) }
}

fn ends_tag(byte: u8) -> bool {
    matches!(byte, b',' | b'[' | b']')
}

/// Where something stands that would be a tag with `,`, `[` or `]` in it, if it is one.
fn tags(text: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-;/?:@&=+$,.!~*'()[]%".contains(byte);
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + text[from..].iter().position(|byte| *byte == b'!')?;
            let verbatim = text[start..].starts_with(b"!<");
            let behind = if verbatim { text[start..].iter().position(|byte| *byte == b'>').unwrap_or(0) } else { 0 };
            let end = start + behind + 1;
            let end = end + text[end..].iter().take_while(|byte| !verbatim && is_letter(byte)).count();
            from = end;
            if !verbatim && text[start..end].iter().any(|byte| ends_tag(*byte)) {
                return Some(start..end);
            }
        }
    })
}

/// Where the first tag begins that the scanner refuses.
fn broken_tag(text: &[u8]) -> Option<usize> {
    let mut parser = Parser::new();
    parser.set_input(input(&[], text, &[]));
    loop {
        match std::panic::catch_unwind(AssertUnwindSafe(|| parser.parse())).ok()? {
            Ok(event) if matches!(event.data, EventData::StreamEnd) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Scanner => {
                let mark = error.context_mark()?;
                let lines = text.split_inclusive(|byte| *byte == b'\n').take(mark.line as usize);
                let line = lines.map(<[u8]>::len).sum::<usize>();
                let mut letters = std::str::from_utf8(text.get(line..)?).ok()?.char_indices();
                let (column, letter) = letters.nth(mark.column as usize)?;
                return (letter == '!').then_some(line + column);
            }
            Err(_) => return None,
        }
    }
}

/// A value as go-yaml lays it out: keys in its order, lines of about 80 characters.
pub fn write(value: &Value) -> String {
    let mut out = Vec::new();
    let mut emitter = Emitter::new();
    emitter.set_output_string(&mut out);
    emitter.set_unicode(true);
    // Writing to memory fails only for events out of order.
    let _ = emitter.emit(Event::stream_start(Encoding::Utf8));
    let _ = emitter.emit(Event::document_start(None, &[], true));
    emit(&mut emitter, value);
    let _ = emitter.emit(Event::document_end(true));
    let _ = emitter.emit(Event::stream_end());
    drop(emitter);
    String::from_utf8(out).unwrap_or_default()
}

fn emit(emitter: &mut Emitter, value: &Value) {
    let scalar = |text: &str, style| Event::scalar(None, None, text, true, true, style);
    let event = match value {
        Value::Object(map) => {
            let _ = emitter.emit(Event::mapping_start(None, None, true, MappingStyle::Block));
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by(|a, b| natural_order(a, b));
            for key in keys {
                let _ = emitter.emit(scalar(key, style(key)));
                emit(emitter, &map[key]);
            }
            Event::mapping_end()
        }
        Value::Array(items) => {
            let _ = emitter.emit(Event::sequence_start(None, None, true, SequenceStyle::Block));
            items.iter().for_each(|item| emit(emitter, item));
            Event::sequence_end()
        }
        Value::String(text) => scalar(text, style(text)),
        other => scalar(&other.to_string(), ScalarStyle::Plain),
    };
    let _ = emitter.emit(event);
}

fn style(text: &str) -> ScalarStyle {
    match () {
        () if text.contains('\n') => ScalarStyle::Literal,
        () if reads_as_text(text) => ScalarStyle::Plain,
        () => ScalarStyle::DoubleQuoted,
    }
}

/// Whether a plain scalar of this text would be read as this text.
fn reads_as_text(text: &str) -> bool {
    matches!(resolve(None, text), Ok(Scalar::Text(_))) && !is_timestamp(text) && !is_sexagesimal(text) && text != "<<"
}

/// The order of keys: numbers in them by their value, letters behind everything else.
fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = (0..a.len().min(b.len())).find(|at| a[*at] != b[*at]) else { return a.len().cmp(&b.len()) };
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => return a[at].cmp(&b[at]),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        _ => {}
    }
    let digits = |text: &[char]| text[at..].iter().take_while(|c| c.is_ascii_digit()).count();
    // A zero behind other digits is one more digit of a number, not the beginning of one.
    let inside = (a[at] == '0' || b[at] == '0')
        && a[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|digit| *digit != '0');
    let number = |text: &[char]| {
        let digits = text[at..].iter().map_while(|c| c.to_digit(10));
        digits.fold(u64::from(inside), |n, digit| n.wrapping_mul(10).wrapping_add(digit.into()))
    };
    number(&a).cmp(&number(&b)).then(digits(&a).cmp(&digits(&b))).then(a[at].cmp(&b[at]))
}

fn is_date(year: i16, month: i8, day: i8) -> bool {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i8::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

fn is_timestamp(text: &str) -> bool {
    let mut numbers = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (numbers.next(), numbers.next(), numbers.next()) else { return false };
    let day_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (day, time) = rest.split_at(day_end);
    let date = (year.parse(), month.parse(), day.parse());
    let (Ok(year_number), Ok(month), Ok(day)) = date else { return false };
    if year.len() != 4 || !is_date(year_number, month, day) {
        return false;
    }
    let clock = match time.chars().next() {
        None => return true,
        Some('T' | 't') => {
            let time = &time[1..];
            match time.strip_suffix('Z') {
                Some(clock) => clock,
                None => match time.rfind(['+', '-']) {
                    Some(at) if time.len() - at == 6 && time.as_bytes()[at + 3] == b':' => &time[..at],
                    _ => return false,
                },
            }
        }
        Some(' ') => &time[1..],
        Some(_) => return false,
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts: Vec<Option<u32>> = clock.split(':').map(|part| part.parse().ok()).collect();
    let valid = matches!(*parts, [Some(h), Some(m), Some(s)] if h < 24 && m < 60 && s < 60);
    valid && !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit())
}

/// Numbers to the base of 60, which nobody writes but other readers take for numbers: `1:30`.
fn is_sexagesimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let digit = |b: u8| b.is_ascii_digit();
    let rest: Vec<&[u8]> = parts.map(str::as_bytes).collect();
    first.bytes().next().is_some_and(digit)
        && first.bytes().all(|b| digit(b) || b == b'_')
        && !rest.is_empty()
        && rest.iter().all(|part| match part {
            [one] => digit(*one),
            [ten, one] => (b'0'..=b'5').contains(ten) && digit(*one),
            _ => false,
        })
        && fraction.bytes().all(|b| digit(b) || b == b'_')
}

/// A text whose last line has no end, though it may be one of a block scalar. The scanner is given the end, because it
/// cannot do without, and what it makes of that is taken out of the scalar again.
struct Unended<'a>(&'a [u8]);

impl<'a> Unended<'a> {
    fn of(text: &'a [u8]) -> Option<Unended<'a>> {
        let ended = text.last().is_none_or(|last| matches!(last, b'\n' | b'\r'));
        let is_utf_16 = text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff");
        (!ended && !is_utf_16 && text.iter().any(|byte| matches!(byte, b'|' | b'>'))).then_some(Unended(text))
    }

    /// The last line is the last one of this block scalar.
    fn ends_in(&self, start: &Mark, end: &Mark) -> bool {
        let text = self.0.strip_prefix(MARK).unwrap_or(self.0);
        if end.index <= text.len() as u64 {
            return false;
        }
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let spaces = |line: &[u8]| line.iter().take_while(|byte| **byte == b' ').count();
        let is_blank = |line: &[u8]| spaces(line) == line.len();
        let Some(last) = lines.last().filter(|last| is_blank(last)) else { return true };
        // What is not deeper than the text above it is no line of it.
        let first = lines.iter().skip(start.line as usize + 1).find(|line| !is_blank(line));
        first.is_some_and(|first| spaces(last) > spaces(first))
    }
}

/// A node of the document, by its place in [`Reader::nodes`].
type NodeId = usize;

struct Node {
    /// Counted from 1.
    line: u64,
    content: Content,
}

enum Content {
    Scalar {
        text: String,
        tag: Option<String>,
        plain: bool,
    },
    List(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
    Alias(NodeId, String),
    /// Begun and not ended: an alias to it would hold itself.
    Open,
}

/// The text, with what the scanner needs before and behind it. One type for all, of which the scanner is made once.
type Input<'a> = Chain<Chain<&'static [u8], &'a [u8]>, &'static [u8]>;

fn input<'a>(before: &'static [u8], text: &'a [u8], behind: &'static [u8]) -> Input<'a> {
    before.chain(text).chain(behind)
}

struct Reader<'a> {
    parser: Parser<Input<'a>>,
    unended: Option<Unended<'a>>,
    nodes: Vec<Node>,
    anchors: HashMap<String, NodeId>,
    duplicates: Vec<String>,
    aliased: usize,
    /// The targets of the aliases that are being followed.
    following: HashSet<NodeId>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Result<Reader<'a>, String> {
        let unended = Unended::of(text);
        let mut parser = Parser::new();
        let end: &[u8] = if unended.is_some() { b"\n" } else { b"" };
        // The scanner takes all that begins as the mark does for a broken one, as letters of full width do.
        let mark: &[u8] = if text.starts_with(&MARK[..1]) && !text.starts_with(MARK) { MARK } else { b"" };
        parser.set_input(input(mark, text, end));
        let mut reader = Reader {
            parser,
            unended,
            nodes: Vec::new(),
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            aliased: 0,
            following: HashSet::new(),
        };
        reader.next()?;
        Ok(reader)
    }

    fn next(&mut self) -> Result<Event, String> {
        self.parse()?.map_err(|error| told(&error))
    }

    /// The scanner knows no answer to some texts, as to a tag that a comma ends, and panics.
    fn parse(&mut self) -> Result<Result<Event, Error>, String> {
        let parsed = std::panic::catch_unwind(AssertUnwindSafe(|| self.parser.parse()));
        parsed.map_err(|_| "yaml: did not find expected whitespace or line break".to_owned())
    }

    /// The next document, none at the end of the stream.
    fn document(&mut self) -> Result<Option<Document>, String> {
        self.nodes.clear();
        self.anchors.clear();
        if matches!(self.next()?.data, EventData::StreamEnd) {
            return Ok(None);
        }
        let first = self.next()?;
        let root = self.node(first, 0)?;
        let end = self.parse()?.map(|_| ());
        let (value, _) = self.value(root)?;
        // What is wrong behind the content is said after what is wrong in it.
        end.map_err(|error| told(&error))?;
        Ok(Some(Document { value: value.into_json()?, duplicates: std::mem::take(&mut self.duplicates) }))
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<NodeId, String> {
        if depth > DEPTH_MAX {
            return Err(format!("yaml: exceeded max depth of {DEPTH_MAX}"));
        }
        let id = self.nodes.len();
        self.nodes.push(Node { line: event.start_mark.line + 1, content: Content::Open });
        let mut named = |anchor: Option<String>| {
            if let Some(anchor) = anchor {
                self.anchors.insert(anchor, id);
            }
        };
        let content = match event.data {
            EventData::Scalar { anchor, tag, mut value, plain_implicit, style, .. } => {
                named(anchor);
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let unended = self.unended.as_ref().filter(|_| is_block && value.ends_with('\n'));
                if unended.is_some_and(|text| text.ends_in(&event.start_mark, &event.end_mark)) {
                    value.pop();
                }
                Content::Scalar { text: value, tag, plain: plain_implicit }
            }
            EventData::Alias { anchor } => match self.anchors.get(&anchor) {
                Some(target) => Content::Alias(*target, anchor),
                None => return Err(format!("yaml: unknown anchor '{anchor}' referenced")),
            },
            EventData::SequenceStart { anchor, .. } => {
                named(anchor);
                let mut items = Vec::new();
                loop {
                    let event = self.next()?;
                    if matches!(event.data, EventData::SequenceEnd) {
                        break Content::List(items);
                    }
                    items.push(self.node(event, depth + 1)?);
                }
            }
            EventData::MappingStart { anchor, .. } => {
                named(anchor);
                let mut pairs = Vec::new();
                loop {
                    let event = self.next()?;
                    if matches!(event.data, EventData::MappingEnd) {
                        break Content::Map(pairs);
                    }
                    let key = self.node(event, depth + 1)?;
                    let event = self.next()?;
                    pairs.push((key, self.node(event, depth + 1)?));
                }
            }
            other => return Err(format!("yaml: attempted to parse unknown event: {other:?}")),
        };
        self.nodes[id].content = content;
        Ok(id)
    }

    /// The value of a node, and its line.
    fn value(&mut self, id: NodeId) -> Result<(Go, u64), String> {
        if !self.following.is_empty() {
            self.aliased += 1;
            if self.aliased > ALIASED_NODES_MAX {
                return Err("yaml: document contains excessive aliasing".into());
            }
        }
        let line = self.nodes[id].line;
        let value = match std::mem::replace(&mut self.nodes[id].content, Content::Open) {
            Content::Scalar { text, tag, plain } => {
                let value = scalar(&text, tag.as_deref(), plain);
                self.nodes[id].content = Content::Scalar { text, tag, plain };
                Go::Scalar(value?)
            }
            Content::List(items) => {
                let values: Result<Vec<Go>, String> = items.iter().map(|item| Ok(self.value(*item)?.0)).collect();
                self.nodes[id].content = Content::List(items);
                Go::List(values?)
            }
            Content::Map(pairs) => {
                let mut out = GoMap::default();
                let done = self.fill(&mut out, &pairs);
                self.nodes[id].content = Content::Map(pairs);
                done?;
                Go::Map(out)
            }
            Content::Alias(target, name) => {
                let value = self.follow(target, &name);
                self.nodes[id].content = Content::Alias(target, name);
                value?
            }
            Content::Open => return Err("yaml: anchor value contains itself".into()),
        };
        Ok((value, line))
    }

    fn follow(&mut self, target: NodeId, name: &str) -> Result<Go, String> {
        if matches!(self.nodes[target].content, Content::Open) {
            return Err(format!("yaml: anchor '{name}' value contains itself"));
        }
        let first = self.following.insert(target);
        let value = self.value(target);
        if first {
            self.following.remove(&target);
        }
        Ok(value?.0)
    }

    fn fill(&mut self, out: &mut GoMap, pairs: &[(NodeId, NodeId)]) -> Result<(), String> {
        for (key, value) in pairs {
            if self.is_merge(*key) {
                self.merge(out, *value)?;
                continue;
            }
            let (key, _) = self.value(*key)?;
            let Go::Scalar(key) = key else { return Err(format!("yaml: invalid map key: {}", key.go_syntax())) };
            let (value, line) = self.value(*value)?;
            let shown = key.go_syntax();
            if out.insert(key, value) {
                self.duplicates.push(format!("line {line}: key {shown} already set in map"));
            }
        }
        Ok(())
    }

    fn is_merge(&self, key: NodeId) -> bool {
        matches!(&self.nodes[key].content, Content::Scalar { text, plain: true, tag: None } if text == "<<")
    }

    /// `<<`: the entries of another map, or of a list of maps.
    fn merge(&mut self, out: &mut GoMap, id: NodeId) -> Result<(), String> {
        let maps = match self.value(id)?.0 {
            Go::Map(map) => vec![Go::Map(map)],
            // The first of a list wins, so that it is laid over the others.
            Go::List(maps) => maps.into_iter().rev().collect(),
            Go::Scalar(_) => Vec::new(),
        };
        if maps.is_empty() || !maps.iter().all(|map| matches!(map, Go::Map(_))) {
            return Err("yaml: map merge requires map or sequence of maps as the value".into());
        }
        for map in maps {
            if let Go::Map(map) = map {
                map.entries.into_iter().for_each(|(key, value)| {
                    out.insert(key, value);
                });
            }
        }
        Ok(())
    }
}

/// What libyaml found wrong, as go-yaml tells it: the context's line before the problem's, and none for the first.
fn told(error: &Error) -> String {
    let line_of = |mark: Option<libyaml_safer::Mark>| mark.map_or(0, |mark| mark.line);
    let line = match (line_of(error.context_mark()), line_of(error.problem_mark())) {
        (0, line) | (line, _) => line,
    };
    // The scanner counts lines from zero, and what the parser knows is one token ahead.
    let scanned = u64::from(error.kind() == ErrorKind::Scanner);
    match line {
        0 => format!("yaml: {}", error.problem()),
        line => format!("yaml: line {}: {}", line + scanned, error.problem()),
    }
}

/// A value as Go has it before it becomes JSON: keys of maps need not be text.
enum Go {
    Scalar(Scalar),
    List(Vec<Go>),
    Map(GoMap),
}

#[derive(Default)]
struct GoMap {
    entries: Vec<(Scalar, Go)>,
    places: HashMap<String, usize>,
}

impl GoMap {
    /// Whether the key was there already.
    fn insert(&mut self, key: Scalar, value: Go) -> bool {
        match self.places.get(&key.go_syntax()) {
            Some(at) => {
                self.entries[*at].1 = value;
                true
            }
            None => {
                self.places.insert(key.go_syntax(), self.entries.len());
                self.entries.push((key, value));
                false
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
}

impl Go {
    fn into_json(self) -> Result<Value, String> {
        Ok(match self {
            Go::Scalar(Scalar::Null) => Value::Null,
            Go::Scalar(Scalar::Bool(b)) => b.into(),
            Go::Scalar(Scalar::Int(n)) => n.into(),
            Go::Scalar(Scalar::Uint(n)) => n.into(),
            Go::Scalar(Scalar::Float(n)) => match n {
                // JSON knows no difference between 1.0 and 1.
                _ if n.fract() == 0.0 && n.abs() < 1e15 => Value::from(n as i64),
                _ => Number::from_f64(n).map(Value::Number).ok_or(format!("json: unsupported value: {}", float(n)))?,
            },
            Go::Scalar(Scalar::Text(text)) => text.into(),
            Go::List(items) => items.into_iter().map(Go::into_json).collect::<Result<Vec<_>, _>>()?.into(),
            Go::Map(map) => {
                let mut sorted = BTreeMap::new();
                for (key, value) in map.entries {
                    let key = match key {
                        Scalar::Text(text) => text,
                        Scalar::Int(n) => n.to_string(),
                        Scalar::Bool(b) => b.to_string(),
                        Scalar::Float(n) => key_of_float(n),
                        Scalar::Null => {
                            return Err(format!(
                                "unsupported map key of type: %!s(<nil>), key: <nil>, value: {}",
                                value.go_syntax()
                            ));
                        }
                        Scalar::Uint(n) => {
                            return Err(format!(
                                "unsupported map key of type: uint64, key: {n:#x}, value: {}",
                                value.go_syntax()
                            ));
                        }
                    };
                    sorted.insert(key, value.into_json()?);
                }
                Value::Object(sorted.into_iter().collect::<Map<_, _>>())
            }
        })
    }

    /// `%#v`.
    fn go_syntax(&self) -> String {
        match self {
            Go::Scalar(scalar) => scalar.go_syntax(),
            Go::List(items) => {
                let items: Vec<String> = items.iter().map(Go::go_syntax).collect();
                format!("[]interface {{}}{{{}}}", items.join(", "))
            }
            Go::Map(map) => {
                let entry = |(key, value): &(Scalar, Go)| format!("{}:{}", key.go_syntax(), value.go_syntax());
                let entries: Vec<String> = map.entries.iter().map(entry).collect();
                format!("map[interface {{}}]interface {{}}{{{}}}", entries.join(", "))
            }
        }
    }
}

impl Scalar {
    fn go_syntax(&self) -> String {
        match self {
            Scalar::Null => "interface {}(nil)".into(),
            Scalar::Bool(b) => b.to_string(),
            Scalar::Int(n) => n.to_string(),
            Scalar::Uint(n) => format!("{n:#x}"),
            Scalar::Float(n) => float(*n),
            Scalar::Text(text) => go::quote(text),
        }
    }
}

fn float(n: f64) -> String {
    match n {
        _ if n.is_nan() => "NaN".into(),
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        _ => n.to_string(),
    }
}

/// `strconv.FormatFloat(n, 'g', -1, 32)`, with the names of YAML for what is no number.
fn key_of_float(n: f64) -> String {
    if !n.is_finite() {
        return float(n).replace("+Inf", ".inf").replace("-Inf", "-.inf").replace("NaN", ".nan");
    }
    let short = format!("{:e}", n as f32);
    let (mantissa, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return (n as f32).to_string();
    }
    let mut out = mantissa.to_string();
    let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    out
}

const TAG: &str = "tag:yaml.org,2002:";

fn scalar(text: &str, tag: Option<&str>, plain: bool) -> Result<Scalar, String> {
    let short = tag.map(|tag| tag.strip_prefix(TAG).unwrap_or(tag));
    match short {
        None if plain => resolve(None, text),
        None => Ok(Scalar::Text(text.into())),
        Some("binary") => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned())),
            Err(_) => Err("yaml: !!binary value contains invalid base64 data".into()),
        },
        Some(short @ ("bool" | "int" | "float" | "null")) => resolve(Some(short), text),
        Some(_) => Ok(Scalar::Text(text.into())),
    }
}

/// What a plain scalar stands for. A tag says what it must be.
fn resolve(tag: Option<&str>, text: &str) -> Result<Scalar, String> {
    let value = word(text).or_else(|| number(text)).unwrap_or_else(|| Scalar::Text(text.into()));
    let is = match value {
        Scalar::Null => "null",
        Scalar::Bool(_) => "bool",
        Scalar::Int(_) | Scalar::Uint(_) => "int",
        Scalar::Float(_) => "float",
        Scalar::Text(_) => "str",
    };
    match (tag, value) {
        (None, value) => Ok(value),
        (Some(tag), value) if tag == is => Ok(value),
        (Some("float"), Scalar::Int(n)) => Ok(Scalar::Float(n as f64)),
        (Some("float"), Scalar::Uint(n)) => Ok(Scalar::Float(n as f64)),
        (Some(tag), _) => Err(format!("yaml: cannot decode !!{is} `{text}` as a !!{tag}")),
    }
}

fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => return None,
    })
}

fn number(text: &str) -> Option<Scalar> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| is_float(&plain).then(|| plain.parse().ok().map(Scalar::Float))?)
}

/// Decimal, `0x`, `0b`, `0o`, and octal with a zero in front.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // The parser of numbers takes a second sign, which is no digit here.
    let first = digits.chars().next()?;
    let size = first.is_digit(base).then(|| u64::from_str_radix(digits, base).ok())??;
    match negative {
        true => 0i64.checked_sub_unsigned(size).map(Scalar::Int),
        false => Some(i64::try_from(size).map_or(Scalar::Uint(size), Scalar::Int)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, "")) => digits(whole),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(mantissa),
    };
    whole && exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: Value) {
        assert_eq!(read(text.as_bytes()).map(|document| document.value), Ok(want));
    }

    #[track_caller]
    fn refuses(text: &str, want: &str) {
        assert_eq!(read(text.as_bytes()).map(|document| document.value), Err(want.to_string()));
    }

    #[test]
    fn plain_words_are_yaml_1_1() {
        check("{a: yes, b: off, c: y, d: 0x1, e: 010, f: 1_000, g: 1.0, h: 1.5, i: ~, j: '1', k: 2001-01-01}", {
            json!({"a": true, "b": false, "c": true, "d": 1, "e": 8, "f": 1000, "g": 1, "h": 1.5, "i": null, "j": "1", "k": "2001-01-01"})
        });
        check("{a: !!str 1, b: !!float 1, c: -0b11, d: 18446744073709551615, e: 08, f: '', g: -, h: +x}", {
            json!({"a": "1", "b": 1, "c": -3, "d": 18446744073709551615u64, "e": 8, "f": "", "g": "-", "h": "+x"})
        });
        check(
            "{1: x, yes: z, off: v, 1.50: u, 1e6: w}",
            json!({"1": "x", "1.5": "u", "1e+06": "w", "false": "v", "true": "z"}),
        );
        check("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", json!({"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}));
        check("", Value::Null);
        check("a: 1\n---\nb: [", json!({"a": 1}));
    }

    #[test]
    fn a_text_may_begin_as_a_byte_order_mark_does() {
        check("\u{ff21}: |\n x", json!({"\u{ff21}": "x"}));
        check("\u{feff}a: 1", json!({"a": 1}));
    }

    #[test]
    fn a_text_may_end_within_a_block() {
        check("a: |\n  text", json!({"a": "text"}));
        check("a: |\n  text\n", json!({"a": "text\n"}));
        check("a: |+\n  text", json!({"a": "text"}));
        check("a: |-\n  text", json!({"a": "text"}));
        check("a: >\n  text\n  more", json!({"a": "text more"}));
        check("a: |\n  text\n   ", json!({"a": "text\n "}));
        check("a: |\n  text\n ", json!({"a": "text\n"}));
        check("a: |\n  text  \n ", json!({"a": "text  \n"}));
        check("a: |\n  text\n  ", json!({"a": "text\n"}));
        check("a: |\n ", json!({"a": ""}));
        check("a: |2\n   text", json!({"a": " text"}));
        check("a: |\n\n  text", json!({"a": "\ntext"}));
        check("- >-\n  a\n\n  b]", json!(["a\nb]"]));
        check("a: |\n  t\n# c", json!({"a": "t\n"}));
        check("|\n x", json!("x"));
        check("\u{feff}|\n x", json!("x"));
    }

    #[test]
    fn errors_are_go_yamls() {
        refuses("metadata:\n\tname: two\n", "yaml: line 2: found character that cannot start any token");
        refuses("metadata: {name: two\n", "yaml: line 1: did not find expected ',' or '}'");
        refuses("a: b: c\n", "yaml: mapping values are not allowed in this context");
        refuses("metadata: {name: two}\n  data: {}\n", "yaml: line 1: did not find expected key");
        refuses("{a: *b}", "yaml: unknown anchor 'b' referenced");
        refuses("a: &a [*a]", "yaml: anchor 'a' value contains itself");
        refuses("{~: t}", r#"unsupported map key of type: %!s(<nil>), key: <nil>, value: "t""#);
        refuses(&"[".repeat(300), "yaml: exceeded max depth of 256");
        let bomb: String = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".into(), |text, n| {
            text + &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","))
        });
        refuses(&bomb, "yaml: document contains excessive aliasing");
    }

    /// As sigs.k8s.io/yaml reads them.
    #[test]
    fn a_tag_holds_commas_and_brackets() {
        check("[!!str, a]", json!(["a"]));
        check("[!!str , a]", json!(["", "a"]));
        check("[!!str, , a]", json!(["", "a"]));
        check("{a: !!str,b: 1}", json!({"a": "1"}));
        check("[!, a]", json!(["a"]));
        check("- !!str, a", json!(["a"]));
        check("a: !!int, 1", json!({"a": "1"}));
        check("[!x[y] z]", json!(["z"]));
        check("[!!map, {a: 1}]", json!([{"a": 1}]));
        check("{!!str, a: 1}", json!({"a": 1}));
        check("[!!str, a, !!str, b]", json!(["a", "b"]));
        check("!!str, a", json!("a"));
        check("[é, !!str, a]", json!(["é", "a"]));
        check("a: x !b, c\nd: [!!str, e]", json!({"a": "x !b, c", "d": ["e"]}));
        refuses("[!x,y]", "yaml: line 1: did not find expected ',' or ']'");
        refuses("[!!str]", "yaml: line 1: did not find expected ',' or ']'");
        refuses("{a: !!str, b: 1}", "yaml: did not find expected ',' or '}'");
        refuses("{a: !!str}", "yaml: did not find expected whitespace or line break");
        refuses("[!<tag:yaml.org,2002:str>, a]", "yaml: did not find expected whitespace or line break");
    }

    #[test]
    fn duplicates_are_told_and_the_last_one_counts() {
        let document = read(b"metadata:\n  name: one\n  name: two\n1: a\n1: b\n").unwrap();
        assert_eq!(document.value, json!({"metadata": {"name": "two"}, "1": "b"}));
        assert_eq!(
            document.duplicates,
            [r#"line 3: key "name" already set in map"#, "line 5: key 1 already set in map"]
        );
    }

    #[test]
    fn layout_is_go_yamls() {
        let value = json!({"a10": "it's: #1", "a2": ["- x", "", " lead"], "n": "1", "m": "two\nlines\n", "t": "a\tb",
            "time": "2020-01-02T03:04:05Z", "o": {}, "l": [], "u": "é €", ".": 1.5, "null": null, "b": true, "s": "1:30",
            "long": "Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case"});
        let want = r#".: 1.5
a2:
- '- x'
- ""
- ' lead'
a10: 'it''s: #1'
b: true
l: []
long: 'Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower
  case'
m: |
  two
  lines
"n": "1"
"null": null
o: {}
s: "1:30"
t: "a\tb"
time: "2020-01-02T03:04:05Z"
u: é €
"#;
        assert_eq!(write(&value), want);
        check(want, serde_json::from_str(&sorted(value).to_string()).unwrap());
    }

    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let map: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                Value::Object(map.into_iter().collect())
            }
            other => other,
        }
    }
}
