//! JSON into objects, as a Go server reads and writes them: fields in the order of the Go struct, unknown and duplicate
//! fields dropped and told of, Go's own type errors, and what Go's encoder leaves out left out. Never defaults anything
//! and never validates more than types.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::scalar;
use crate::schema::{Alternative, Field, Omit, Schema, Shape, Type, TypeId};

mod source;
mod syntax;

use source::{Bytes, Source, Token, Tree};

/// Objects and lists in each other. Go allows 10,000, which no client needs; a program's stack is finite.
pub const DEPTH_MAX: usize = 256;
/// How the names of selectors of labels begin, and of what is in them.
const SELECTORS: &str = "apimachinery.pkg.apis.meta.v1.LabelSelector";
/// How many unknown and duplicate fields are told of, as in Go.
const STRICT_MAX: usize = 100;

/// What came of a body.
#[derive(Debug)]
pub struct Decoded {
    /// The object as Go would write it.
    pub object: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.x"`, in the order of the body. Field validation `Strict`
    /// refuses the object for these, `Warn` sends them as warnings.
    pub strict: Vec<String>,
}

/// Why a body is no object of its kind, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is JSON, but a value is not of its field's type.
    #[error("{0}")]
    Type(String),
}

/// Reads JSON text.
pub fn decode(schema: &Schema, root: TypeId, json: &[u8]) -> Result<Decoded, DecodeError> {
    decode_by(Reader::new(schema), root, json)
}

fn decode_by(reader: Reader, root: TypeId, json: &[u8]) -> Result<Decoded, DecodeError> {
    let text = text_of(json);
    let mut source = Bytes::new(&text);
    match reader.read_root(root, &mut source) {
        Ok(decoded) if source.at_end() => Ok(decoded),
        // Go checks the syntax of the whole text first.
        other => match (syntax::check(&text, DEPTH_MAX), other) {
            (Some(error), _) => Err(DecodeError::Syntax(error)),
            (None, Err(Stop::Type(error))) => Err(DecodeError::Type(error)),
            (None, _) => Err(DecodeError::Syntax("invalid JSON".to_owned())),
        },
    }
}

/// As [`decode`], but empty lists and maps that Go leaves out of what it writes stay in, as they stay in Go's memory; not
/// those of the object's own metadata, and those of selectors only where these count as well.
pub fn decode_as_sent(schema: &Schema, root: TypeId, json: &[u8], kept: Empty) -> Result<Decoded, DecodeError> {
    decode_by(Reader { kept, ..Reader::new(schema) }, root, json)
}

/// Which empty lists and maps stay in what is read of those that Go does not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    Dropped,
    /// Those of what is shown as it is in Go's memory.
    Shown,
    /// Those of selectors too, which are shown as they would be written.
    Counted,
}

/// Whether there is an empty list or map in the content of an object that Go would not write.
pub(crate) fn has_empty(schema: &Schema, root: TypeId, object: &Value) -> bool {
    object.as_object().is_some_and(|object| {
        let content = object.iter().filter(|(key, _)| *key != "metadata");
        struct_has_empty(schema, root, content)
    })
}

fn struct_has_empty<'v>(schema: &Schema, id: TypeId, entries: impl Iterator<Item = (&'v String, &'v Value)>) -> bool {
    let fields = &schema.get(id).fields;
    let mut likely = 0;
    for (key, value) in entries {
        let Some(at) = position(fields, key, likely) else { continue };
        likely = at + 1;
        let field = &fields[at];
        let is_empty = match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty() && matches!(field.shape, Shape::Map(_)),
            _ => continue,
        };
        if (is_empty && !matches!(written(field, value), Written::AsItIs))
            || value_has_empty(schema, &field.shape, value)
        {
            return true;
        }
    }
    false
}

fn value_has_empty(schema: &Schema, shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(object)) => struct_has_empty(schema, *id, object.iter()),
        (Shape::List(item, _), Value::Array(items)) => items.iter().any(|below| value_has_empty(schema, item, below)),
        (Shape::Map(item), Value::Object(map)) => map.values().any(|below| value_has_empty(schema, item, below)),
        _ => false,
    }
}

/// Brings a value that is there already (after a patch, from YAML, after defaults) into the same form.
pub fn normalize(schema: &Schema, root: TypeId, value: Value) -> Result<Decoded, DecodeError> {
    normalize_by(Reader::new(schema), root, value)
}

/// As [`normalize`], but with what [`decode_as_sent`] lets in.
pub fn normalize_as_sent(schema: &Schema, root: TypeId, value: Value, kept: Empty) -> Result<Decoded, DecodeError> {
    normalize_by(Reader { kept, ..Reader::new(schema) }, root, value)
}

fn normalize_by(reader: Reader, root: TypeId, value: Value) -> Result<Decoded, DecodeError> {
    reader.read_root(root, &mut Tree::new(value)).map_err(|stop| match stop {
        Stop::Type(error) => DecodeError::Type(error),
        Stop::Syntax => DecodeError::Syntax("exceeded max depth".to_owned()),
    })
}

/// A body as text: what is no UTF-8 becomes U+FFFD, as in Go. Nearly all of them are, which is quicker seen by itself.
fn text_of(json: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(json).map_or_else(|_| String::from_utf8_lossy(json), Cow::Borrowed)
}

/// Reads JSON text of which nothing is known.
pub fn any(json: &[u8]) -> Result<Value, DecodeError> {
    let text = text_of(json);
    let mut source = Bytes::new(&text);
    match source.value(1) {
        Ok(value) if source.at_end() => Ok(value),
        other => Err(match (syntax::check(&text, DEPTH_MAX), other) {
            (Some(why), _) => DecodeError::Syntax(why),
            (None, Err(Stop::Type(why))) => DecodeError::Type(why),
            (None, _) => DecodeError::Syntax("invalid JSON".to_owned()),
        }),
    }
}

/// The `apiVersion` and `kind` of a body, `""` where it has none. Go reads them before anything else, so that a body that
/// is no JSON fails here, with these words.
pub fn type_meta(json: &[u8]) -> Result<(String, String), DecodeError> {
    const GO_TYPE: &str =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let text = text_of(json);
    let mut source = Bytes::new(&text);
    match read_type_meta(&mut source, GO_TYPE) {
        Ok(read) if source.at_end() => read,
        // Go checks the syntax of the whole text first.
        _ => Err(DecodeError::Syntax(syntax::check(&text, DEPTH_MAX).unwrap_or_else(|| "invalid JSON".to_owned()))),
    }
}

/// What is not JSON is an error outside, what is of another type one inside.
fn read_type_meta(source: &mut Bytes<'_>, go_type: &str) -> Result<Result<(String, String), DecodeError>, Stop> {
    let (mut api_version, mut kind, mut first_error) = (String::new(), String::new(), None);
    match source.next()? {
        Token::Null => {}
        Token::Object => {
            let mut first = true;
            while let Some(key) = source.key(&mut first)? {
                let target = match &*key {
                    "apiVersion" => &mut api_version,
                    "kind" => &mut kind,
                    _ => {
                        source.skip(1)?;
                        continue;
                    }
                };
                match source.next()? {
                    Token::String(text) => *target = text.into_owned(),
                    Token::Null => {}
                    token => {
                        let what = token.go_name();
                        source.skip_rest(token, 1)?;
                        first_error.get_or_insert(format!(
                            "json: cannot unmarshal {what} into Go struct field .{key} of type string"
                        ));
                    }
                }
            }
        }
        token => {
            first_error = Some(format!("json: cannot unmarshal {} into Go value of type {go_type}", token.go_name()));
            source.skip_rest(token, 0)?;
        }
    }
    Ok(match first_error {
        Some(error) => Err(DecodeError::Type(error)),
        None => Ok((api_version, kind)),
    })
}

/// What is wrong with a text that is not JSON, in Go's words; `None` where it is JSON.
pub fn syntax_error(json: &[u8]) -> Option<String> {
    syntax::check(&text_of(json), DEPTH_MAX)
}

/// The keys that JSON text gives twice, `duplicate field "data.x"` or `duplicate field "[0].path"`; none for what is no JSON.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let text = text_of(json);
    let mut out = Vec::new();
    // What is no JSON ends early; its errors are told elsewhere.
    let _ = find_duplicates(&mut Bytes::new(&text), &mut String::new(), 0, &mut out);
    out
}

fn find_duplicates(source: &mut Bytes<'_>, path: &mut String, depth: usize, out: &mut Vec<String>) -> Result<(), Stop> {
    if depth > DEPTH_MAX {
        return Err(Stop::Syntax);
    }
    let (length, mut first) = (path.len(), true);
    match source.next()? {
        Token::Array => {
            let mut at = 0;
            while source.more(&mut first)? {
                path.push_str(&format!("[{at}]"));
                find_duplicates(source, path, depth + 1, out)?;
                path.truncate(length);
                at += 1;
            }
        }
        Token::Object => {
            let mut seen = std::collections::HashSet::new();
            while let Some(key) = source.key(&mut first)? {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
                if !seen.insert(key) && out.len() < STRICT_MAX {
                    out.push(format!("duplicate field {}", crate::kind::go_quote(path)));
                }
                find_duplicates(source, path, depth + 1, out)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// What a type that reads itself says of a value that is none of its own, where nothing around it is known.
pub(crate) fn own_error(schema: &Schema, shape: &Shape, value: &Value) -> Option<String> {
    let mut reader = Reader::new(schema);
    match reader.read(shape, None, &mut Tree::new(value.clone())) {
        Err(Stop::Type(why)) => Some(why),
        _ => reader.first_error,
    }
}

/// What is wrong with a text that is no `metav1.Time`, in Go's words; `""` where it is one.
pub fn time_error(text: &str) -> String {
    scalar::time(text.into()).err().unwrap_or_default()
}

/// The value Go writes for a field of this shape that nobody set (and that is no pointer).
pub fn zero(schema: &Schema, shape: &Shape) -> Value {
    match shape {
        Shape::String => Value::from(""),
        Shape::Bool => Value::from(false),
        Shape::Int32 | Shape::Int64 | Shape::Float | Shape::IntOrString => Value::from(0),
        Shape::Duration => Value::from("0s"),
        Shape::Quantity => Value::from("0"),
        Shape::Struct(id) => {
            let fields = schema.get(*id).fields.iter();
            Value::Object(fields.filter_map(|f| Some((f.name.to_string(), absent(schema, f)?))).collect())
        }
        Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::StructOr(..) => Value::Null,
        Shape::Any | Shape::Deduced | Shape::Scalar => Value::Null,
        Shape::List(..) | Shape::Map(_) => Value::Null,
    }
}

/// What Go writes for a field that nobody set, if anything.
pub(crate) fn absent(schema: &Schema, field: &Field) -> Option<Value> {
    match field.omit {
        Omit::Never if field.pointer => Some(Value::Null),
        Omit::Never => Some(zero(schema, &field.shape)),
        // omitempty never leaves out a struct.
        Omit::Empty if !field.pointer && is_struct(&field.shape) => Some(zero(schema, &field.shape)),
        Omit::Empty | Omit::Zero => None,
    }
}

/// How Go writes a field that has a value.
pub(crate) enum Written {
    AsItIs,
    Null,
    LeftOut,
}

pub(crate) fn written(field: &Field, value: &Value) -> Written {
    if field.pointer || (field.omit == Omit::Empty && is_struct(&field.shape)) {
        return Written::AsItIs;
    }
    match field.omit {
        // An object that is stored comes back without the difference between an empty list and none.
        Omit::Never => match value {
            Value::Array(items) if items.is_empty() => Written::Null,
            Value::Object(map) if map.is_empty() && matches!(field.shape, Shape::Map(_)) => Written::Null,
            _ => Written::AsItIs,
        },
        Omit::Empty | Omit::Zero if is_empty(&field.shape, value) => Written::LeftOut,
        Omit::Empty | Omit::Zero => Written::AsItIs,
    }
}

/// What omitempty leaves out.
pub(crate) fn is_empty(shape: &Shape, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0) && !matches!(shape, Shape::IntOrString),
        Value::String(s) => s.is_empty() && matches!(shape, Shape::String | Shape::Bytes),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(shape, Shape::Map(_)),
    }
}

fn is_collection(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// A Go struct, which omitempty does not see into.
fn is_struct(shape: &Shape) -> bool {
    matches!(
        shape,
        Shape::Struct(_)
            | Shape::StructOr(..)
            | Shape::Time
            | Shape::MicroTime
            | Shape::Duration
            | Shape::Quantity
            | Shape::IntOrString
            | Shape::Any
    )
}

/// Why reading ended early.
enum Stop {
    /// Not JSON, or too deep; the exact words come from [`syntax::check`].
    Syntax,
    /// What Go reports at once, without reading on.
    Type(String),
}

/// Where in the body the reader is, for the words of errors.
enum Step<'s> {
    Field(&'s Field),
    Key(String),
    Item(usize),
}

struct Reader<'s> {
    schema: &'s Schema,
    /// Values of the fields of the structs being read, one range per struct.
    slots: Vec<Option<Value>>,
    path: Vec<Step<'s>>,
    /// The struct being read and where the path of its own document starts.
    inside: Option<TypeId>,
    document: usize,
    /// Never of the object's own metadata.
    kept: Empty,
    /// Below a type that reads itself, where Go is not strict.
    lenient: bool,
    depth: usize,
    strict: Vec<String>,
    /// Go reads on after a type error and reports the first.
    first_error: Option<String>,
}

impl<'s> Reader<'s> {
    fn new(schema: &'s Schema) -> Reader<'s> {
        Reader {
            schema,
            slots: Vec::with_capacity(64),
            path: Vec::with_capacity(16),
            inside: None,
            document: 0,
            kept: Empty::Dropped,
            lenient: false,
            depth: 0,
            strict: Vec::new(),
            first_error: None,
        }
    }

    fn read_root<'a>(mut self, root: TypeId, source: &mut impl Source<'a>) -> Result<Decoded, Stop> {
        let shape = Shape::Struct(root);
        let object = self.read(&shape, None, source)?.unwrap_or_else(|| zero(self.schema, &shape));
        match self.first_error {
            Some(error) => Err(Stop::Type(error)),
            None => Ok(Decoded { object, strict: self.strict }),
        }
    }

    /// A value of this shape; `None` is `null`, or a value of the wrong type. `named` is the shape's name in Go where it is
    /// not the shape's own.
    fn read<'a>(
        &mut self,
        shape: &Shape,
        named: Option<&str>,
        source: &mut impl Source<'a>,
    ) -> Result<Option<Value>, Stop> {
        // These read themselves.
        match shape {
            Shape::Any | Shape::Deduced | Shape::Scalar => {
                return source.value(self.depth).map(|value| Some(value).filter(|v| !v.is_null()));
            }
            Shape::Quantity => return self.read_quantity(source, false),
            Shape::IntOrString => return self.read_int_or_string(source),
            Shape::StructOr(id, other) => return self.read_struct_or(*id, *other, source),
            Shape::Time | Shape::MicroTime | Shape::Duration => return self.read_time(shape, source),
            _ => {}
        }
        let token = source.next()?;
        Ok(Some(match (shape, token) {
            (_, Token::Null) => return Ok(None),
            (Shape::String, Token::String(text)) => Value::String(text.into_owned()),
            (Shape::Bool, Token::Bool(b)) => Value::Bool(b),
            (Shape::Int64, Token::Number(text)) => match text.parse::<i64>() {
                Ok(n) => Value::from(n),
                Err(_) => return Ok(self.type_error(&format!("number {text}"), shape, named)),
            },
            (Shape::Int32, Token::Number(text)) => match text.parse::<i32>() {
                Ok(n) => Value::from(n),
                Err(_) => return Ok(self.type_error(&format!("number {text}"), shape, named)),
            },
            (Shape::Float, Token::Number(text)) => match text.parse::<f64>() {
                Ok(n) if n.is_finite() => number(n),
                _ => return Ok(self.type_error(&format!("number {text}"), shape, named)),
            },
            (Shape::Bytes, Token::String(text)) => match scalar::base64(text) {
                Ok(text) => Value::String(text),
                Err(error) => {
                    self.first_error.get_or_insert(error);
                    return Ok(None);
                }
            },
            (Shape::Bytes, Token::Array) => Value::String(scalar::base64_of(&self.read_numbers(source)?)),
            (Shape::Struct(id), Token::Object) => self.read_struct(*id, source)?,
            (Shape::List(item, _), Token::Array) => self.read_list(item, named, source)?,
            (Shape::Map(item), Token::Object) => self.read_map(item, source)?,
            (_, token) => {
                let what = token.go_name();
                source.skip_rest(token, self.depth)?;
                return Ok(self.type_error(what, shape, named));
            }
        }))
    }

    fn read_struct<'a>(&mut self, id: TypeId, source: &mut impl Source<'a>) -> Result<Value, Stop> {
        self.enter()?;
        let Type { fields, preserve_unknown, name, .. } = self.schema.get(id);
        let base = self.slots.len();
        self.slots.resize_with(base + fields.len(), || None);
        let outer = self.inside.replace(id);
        let mut unknown = Map::new();
        let (mut first, mut likely) = (true, 0);
        while let Some(key) = source.key(&mut first)? {
            let Some(at) = position(fields, &key, likely) else {
                if *preserve_unknown {
                    let value = source.value(self.depth)?;
                    unknown.insert(key.into_owned(), value);
                } else {
                    self.note("unknown", &key);
                    source.skip(self.depth)?;
                }
                continue;
            };
            likely = at + 1;
            let field = &fields[at];
            if self.slots[base + at].is_some() {
                self.note("duplicate", &key);
            }
            self.path.push(Step::Field(field));
            let value = match &field.shape {
                Shape::Map(item) if **item == Shape::Quantity => self.read_resource_list(field, source)?,
                shape => self.read(shape, field.named.as_deref(), source)?,
            };
            self.path.pop();
            // Null leaves what is no pointer as it was.
            let slot = &mut self.slots[base + at];
            if value.is_some() || field.pointer || slot.is_none() {
                *slot = Some(value.unwrap_or_default());
            }
        }
        self.inside = outer;
        self.depth -= 1;
        let filled = self.slots[base..].iter().filter(|slot| slot.is_some()).count();
        let of_metadata = matches!(self.path.first(), Some(Step::Field(field)) if *field.name == *"metadata");
        let keeps_empty = match self.kept {
            _ if of_metadata => false,
            Empty::Dropped => false,
            Empty::Shown => !name.starts_with(SELECTORS),
            Empty::Counted => true,
        };
        let mut object = Map::with_capacity(filled + unknown.len() + 1);
        for (field, slot) in fields.iter().zip(self.slots.drain(base..)) {
            let value = match slot {
                Some(value) if !value.is_null() => match written(field, &value) {
                    // Whoever writes an empty list owns it, until it is stored as none.
                    Written::AsItIs | Written::Null => Some(value),
                    Written::LeftOut => Some(value).filter(|value| keeps_empty && is_collection(value)),
                },
                _ => absent(self.schema, field),
            };
            if let Some(value) = value {
                object.insert(String::from(&*field.name), value);
            }
        }
        object.extend(unknown);
        Ok(Value::Object(object))
    }

    fn read_list<'a>(
        &mut self,
        item: &Shape,
        named: Option<&str>,
        source: &mut impl Source<'a>,
    ) -> Result<Value, Stop> {
        self.enter()?;
        let named = named.and_then(|name| name.strip_prefix("[]"));
        let mut items = Vec::new();
        let mut first = true;
        while source.more(&mut first)? {
            self.path.push(Step::Item(items.len()));
            let value = self.read(item, named, source)?;
            self.path.pop();
            items.push(value.unwrap_or_else(|| zero(self.schema, item)));
        }
        self.depth -= 1;
        Ok(Value::Array(items))
    }

    /// To Go bytes are a list of small numbers as well as base64.
    fn read_numbers<'a>(&mut self, source: &mut impl Source<'a>) -> Result<Vec<u8>, Stop> {
        self.enter()?;
        let (mut bytes, mut first) = (Vec::new(), true);
        while source.more(&mut first)? {
            let what = match source.next()? {
                Token::Null => {
                    bytes.push(0);
                    continue;
                }
                Token::Number(text) => match text.parse::<u8>() {
                    Ok(byte) => {
                        bytes.push(byte);
                        continue;
                    }
                    Err(_) => format!("number {text}"),
                },
                token => {
                    let what = token.go_name().to_owned();
                    source.skip_rest(token, self.depth)?;
                    what
                }
            };
            bytes.push(0);
            self.type_error(&what, &Shape::Bytes, Some("uint8"));
        }
        self.depth -= 1;
        Ok(bytes)
    }

    /// Go writes the keys of a map in order.
    fn read_map<'a>(&mut self, item: &Shape, source: &mut impl Source<'a>) -> Result<Value, Stop> {
        self.enter()?;
        let plain = matches!(item, Shape::String | Shape::Bool | Shape::Int32 | Shape::Int64 | Shape::Bytes);
        let mut map = Map::new();
        let (mut first, mut sorted) = (true, true);
        while let Some(key) = source.key(&mut first)? {
            if !plain {
                self.path.push(Step::Key(key.to_string()));
            }
            let value = self.read(item, None, source)?;
            if !plain {
                self.path.pop();
            }
            sorted = sorted && map.iter().next_back().is_none_or(|(last, _): (&String, _)| **last < *key);
            if !sorted && map.contains_key(&*key) {
                self.note("duplicate", &key);
            }
            // Stored, nil bytes come back as none.
            let value = value.unwrap_or_else(|| match item {
                Shape::Bytes => "".into(),
                _ => zero(self.schema, item),
            });
            map.insert(key.into_owned(), value);
        }
        if !sorted {
            map.sort_keys();
        }
        self.depth -= 1;
        Ok(Value::Object(map))
    }

    /// `v1.ResourceList`: Go's defaults round it up to thousandths, which brings it into canonical form.
    fn read_resource_list<'a>(&mut self, field: &Field, source: &mut impl Source<'a>) -> Result<Option<Value>, Stop> {
        match source.next()? {
            Token::Null => return Ok(None),
            Token::Object => {}
            token => {
                let what = token.go_name();
                source.skip_rest(token, self.depth)?;
                return Ok(self.type_error(what, &field.shape, field.named.as_deref()));
            }
        }
        self.enter()?;
        let mut map = Map::new();
        let mut first = true;
        while let Some(key) = source.key(&mut first)? {
            let value = self.read_quantity(source, true)?.unwrap_or_else(|| "0".into());
            if map.insert(key.to_string(), value).is_some() {
                self.note("duplicate", &key);
            }
        }
        map.sort_keys();
        self.depth -= 1;
        Ok(Some(Value::Object(map)))
    }

    fn read_quantity<'a>(&mut self, source: &mut impl Source<'a>, round: bool) -> Result<Option<Value>, Stop> {
        let token = source.next()?;
        let text = match token {
            Token::Null => return Ok(None),
            Token::String(text) | Token::Number(text) => text,
            token => {
                source.skip_rest(token, self.depth)?;
                Cow::Borrowed("{}")
            }
        };
        let trimmed = text.trim();
        let quantity = Quantity::parse(trimmed).map_err(|error| Stop::Type(error.to_string()))?;
        let quantity = if round { quantity.round_up(-3) } else { quantity };
        Ok(Some(Value::String(quantity.to_string())))
    }

    fn read_int_or_string<'a>(&mut self, source: &mut impl Source<'a>) -> Result<Option<Value>, Stop> {
        let what = match source.next()? {
            Token::Null => return Ok(None),
            Token::String(text) => return Ok(Some(Value::String(text.into_owned()))),
            Token::Number(text) => match text.parse::<i32>() {
                Ok(n) => return Ok(Some(Value::from(n))),
                Err(_) => format!("number {text}"),
            },
            token => token.go_name().to_owned(),
        };
        Err(Stop::Type(self.mismatch(&what, "int32")))
    }

    fn read_time<'a>(&mut self, shape: &Shape, source: &mut impl Source<'a>) -> Result<Option<Value>, Stop> {
        let text = match source.next()? {
            Token::Null => return Ok(None),
            Token::String(text) => text,
            token => {
                let what = token.go_name();
                return Err(Stop::Type(self.mismatch(what, "string")));
            }
        };
        let read = match shape {
            Shape::Time => scalar::time(text),
            Shape::MicroTime => scalar::micro_time(text),
            _ => scalar::duration(&text).map(Some),
        };
        Ok(read.map_err(Stop::Type)?.map(Value::String))
    }

    fn read_struct_or<'a>(
        &mut self,
        id: TypeId,
        other: Alternative,
        source: &mut impl Source<'a>,
    ) -> Result<Option<Value>, Stop> {
        const STRING: Shape = Shape::String;
        let token = source.next()?;
        if matches!(token, Token::Null) {
            return Ok(None);
        }
        // It is a document of its own: errors inside do not know where it is.
        let outer = (self.inside.take(), std::mem::replace(&mut self.lenient, true));
        let document = std::mem::replace(&mut self.document, self.path.len());
        let value = match (token, other) {
            (Token::Object, _) => Some(self.read_struct(id, source)?),
            (Token::Bool(b), Alternative::Bool) => Some(Value::Bool(b)),
            (_, Alternative::Bool) => return Err(Stop::Type("boolean or JSON schema expected".to_owned())),
            (Token::Array, Alternative::Strings) => Some(self.read_list(&STRING, None, source)?),
            (Token::Array, Alternative::List) => {
                self.enter()?;
                let (mut items, mut first) = (Vec::new(), true);
                while source.more(&mut first)? {
                    items.push(match source.next()? {
                        Token::Object => self.read_struct(id, source)?,
                        Token::Null => zero(self.schema, &Shape::Struct(id)),
                        token => {
                            let what = token.go_name();
                            source.skip_rest(token, self.depth)?;
                            self.type_error(what, &Shape::Struct(id), None).unwrap_or_default()
                        }
                    });
                }
                self.depth -= 1;
                Some(Value::Array(items))
            }
            (token, _) => {
                source.skip_rest(token, self.depth)?;
                None
            }
        };
        self.document = document;
        (self.inside, self.lenient) = outer;
        Ok(value.filter(|value| value.as_array().is_none_or(|items| !items.is_empty())))
    }

    fn enter(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Stop::Syntax) } else { Ok(()) }
    }

    /// `unknown field "spec.containers[0].imagee"`.
    fn note(&mut self, what: &str, key: &str) {
        if self.lenient || self.strict.len() >= STRICT_MAX {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Item(at) => path.push_str(&format!("[{at}]")),
                Step::Field(field) => path.extend([".", &*field.name]),
                Step::Key(name) => path.extend([".", name]),
            }
        }
        path.extend([".", key]);
        let text = format!("{what} field {}", crate::kind::go_quote(path.strip_prefix('.').unwrap_or(&path)));
        if !self.strict.contains(&text) {
            self.strict.push(text);
        }
    }

    /// Go's `UnmarshalTypeError`. Always `None`: the field stays as it was.
    fn type_error(&mut self, what: &str, shape: &Shape, named: Option<&str>) -> Option<Value> {
        if self.first_error.is_none() {
            let own = named.map_or_else(|| go_type(self.schema, shape), str::to_owned);
            self.first_error = Some(self.mismatch(what, &own));
        }
        None
    }

    /// `json: cannot unmarshal bool into Go struct field PodSpec.spec.nodeName of type string`.
    fn mismatch(&self, what: &str, own: &str) -> String {
        let Some(id) = self.inside else { return format!("json: cannot unmarshal {what} into Go value of type {own}") };
        let mut names = Vec::new();
        for step in &self.path[self.document..] {
            if let Step::Field(field) = step {
                names.extend(field.inlined_as.as_deref());
                names.push(&*field.name);
            }
        }
        let inside = short_name(&self.schema.get(id).name);
        format!("json: cannot unmarshal {what} into Go struct field {inside}.{} of type {own}", names.join("."))
    }
}

/// Bodies mostly have their fields in the order of the struct, so that the next one is the likely one.
fn position(fields: &[Field], key: &str, likely: usize) -> Option<usize> {
    match fields.get(likely) {
        Some(field) if *field.name == *key => Some(likely),
        _ => fields.iter().position(|field| *field.name == *key),
    }
}

/// As Go prints it: a whole number has no `.0`.
pub(crate) fn number(n: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= EXACT { Value::from(n as i64) } else { Value::from(n) }
}

/// `v1.PodSpec`, `[]string`, `map[string]string`.
fn go_type(schema: &Schema, shape: &Shape) -> String {
    match shape {
        Shape::String => "string".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Float => "float64".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Duration => "v1.Duration".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Any | Shape::Deduced | Shape::Scalar => "runtime.RawExtension".to_owned(),
        Shape::Struct(id) | Shape::StructOr(id, _) => {
            let name = &*schema.get(*id).name;
            let package = name.rsplit('.').nth(1).unwrap_or_default();
            format!("{package}.{}", short_name(name))
        }
        Shape::List(item, _) => format!("[]{}", go_type(schema, item)),
        Shape::Map(item) => format!("map[string]{}", go_type(schema, item)),
    }
}

fn short_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
