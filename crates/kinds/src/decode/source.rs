//! Where values come from: JSON text, or a value that is there already. One reader reads both.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{DEPTH_MAX, Stop};

/// The beginning of a value; the content of lists and objects follows.
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    /// The number as it is written.
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    Array,
    Object,
}

impl Token<'_> {
    /// What Go calls it in a type error.
    pub(super) fn go_name(&self) -> &'static str {
        match self {
            Token::Null => "null",
            Token::Bool(_) => "bool",
            Token::Number(_) => "number",
            Token::String(_) => "string",
            Token::Array => "array",
            Token::Object => "object",
        }
    }
}

pub(super) trait Source<'a> {
    fn next(&mut self) -> Result<Token<'a>, Stop>;
    /// The next key of the object that was begun, `None` at its end. `first` is true before the first.
    fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Stop>;
    /// Whether the list that was begun has another item.
    fn more(&mut self, first: &mut bool) -> Result<bool, Stop>;

    /// The next value as it is, `depth` levels deep in the document.
    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Syntax);
        }
        Ok(match self.next()? {
            Token::Null => Value::Null,
            Token::Bool(b) => Value::Bool(b),
            Token::Number(text) => exact_number(&text)?,
            Token::String(text) => Value::String(text.into_owned()),
            Token::Array => {
                let (mut items, mut first) = (Vec::new(), true);
                while self.more(&mut first)? {
                    items.push(self.value(depth + 1)?);
                }
                Value::Array(items)
            }
            Token::Object => {
                let (mut map, mut first) = (Map::new(), true);
                while let Some(key) = self.key(&mut first)? {
                    let value = self.value(depth + 1)?;
                    map.insert(key.into_owned(), value);
                }
                Value::Object(map)
            }
        })
    }

    fn skip(&mut self, depth: usize) -> Result<(), Stop> {
        let token = self.next()?;
        self.skip_rest(token, depth)
    }

    /// The content of a value that was begun.
    fn skip_rest(&mut self, token: Token<'a>, depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Syntax);
        }
        let mut first = true;
        match token {
            Token::Array => {
                while self.more(&mut first)? {
                    self.skip(depth + 1)?;
                }
            }
            Token::Object => {
                while self.key(&mut first)?.is_some() {
                    self.skip(depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn exact_number(text: &str) -> Result<Value, Stop> {
    if let Ok(n) = text.parse::<i64>() {
        return Ok(n.into());
    }
    if let Ok(n) = text.parse::<u64>() {
        return Ok(n.into());
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n.into()),
        _ => Err(Stop::Type(format!("json: cannot unmarshal number {text} into Go value of type float64"))),
    }
}

/// JSON text. It notices what is not JSON but not how: that is told by the slow check.
pub(super) struct Bytes<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(text: &'a str) -> Bytes<'a> {
        Bytes { text, at: 0 }
    }

    /// Nothing but white space is left.
    pub(super) fn at_end(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }

    fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, word: &str) -> Result<(), Stop> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Stop::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<&'a str, Stop> {
        let bytes = self.text.as_bytes();
        let from = self.at;
        if bytes[self.at] == b'-' {
            self.at += 1;
        }
        let zero = bytes.get(self.at) == Some(&b'0');
        match self.digits() {
            0 => return Err(Stop::Syntax),
            1 => {}
            _ if zero => return Err(Stop::Syntax),
            _ => {}
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(Stop::Syntax);
            }
        }
        if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(Stop::Syntax);
            }
        }
        Ok(&self.text[from..self.at])
    }

    /// After the opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Stop> {
        let bytes = self.text.as_bytes();
        let from = self.at;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[from..self.at - 1]));
                }
                Some(b'\\') => return self.escaped(from).map(Cow::Owned),
                Some(b) if *b >= 0x20 => self.at += 1,
                _ => return Err(Stop::Syntax),
            }
        }
    }

    fn escaped(&mut self, from: usize) -> Result<String, Stop> {
        let bytes = self.text.as_bytes();
        let mut out = String::from(&self.text[from..self.at]);
        loop {
            let plain = self.at;
            while bytes.get(self.at).is_some_and(|b| *b >= 0x20 && !matches!(b, b'"' | b'\\')) {
                self.at += 1;
            }
            out.push_str(&self.text[plain..self.at]);
            let escape = match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => *bytes.get(self.at + 1).ok_or(Stop::Syntax)?,
                _ => return Err(Stop::Syntax),
            };
            self.at += 2;
            out.push(match escape {
                b'"' | b'\\' | b'/' => escape.into(),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let unit = self.hex()?;
                    // Half of a pair stands for nothing; Go writes a replacement character.
                    let other = match unit {
                        0xd800..0xdc00 if bytes[self.at..].starts_with(b"\\u") => {
                            let back = self.at;
                            self.at += 2;
                            let other = self.hex()?;
                            if !(0xdc00..0xe000).contains(&other) {
                                self.at = back;
                            }
                            other
                        }
                        _ => 0,
                    };
                    match (unit, other) {
                        (0xd800..0xdc00, 0xdc00..0xe000) => {
                            let code = 0x10000 + ((unit - 0xd800) << 10) + (other - 0xdc00);
                            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                        }
                        _ => char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
                    }
                }
                _ => return Err(Stop::Syntax),
            });
        }
    }

    fn hex(&mut self) -> Result<u32, Stop> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Stop::Syntax)?;
        self.at += 4;
        digits.iter().try_fold(0, |n, d| Some(n * 16 + char::from(*d).to_digit(16)?)).ok_or(Stop::Syntax)
    }
}

impl<'a> Source<'a> for Bytes<'a> {
    fn next(&mut self) -> Result<Token<'a>, Stop> {
        Ok(match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Token::String(self.string()?)
            }
            Some(b'{') => {
                self.at += 1;
                Token::Object
            }
            Some(b'[') => {
                self.at += 1;
                Token::Array
            }
            Some(b'-' | b'0'..=b'9') => Token::Number(Cow::Borrowed(self.number()?)),
            Some(b't') => {
                self.expect("true")?;
                Token::Bool(true)
            }
            Some(b'f') => {
                self.expect("false")?;
                Token::Bool(false)
            }
            Some(b'n') => {
                self.expect("null")?;
                Token::Null
            }
            _ => return Err(Stop::Syntax),
        })
    }

    fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Stop> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !*first => {
                self.at += 1;
                self.space();
            }
            Some(_) if *first => {}
            _ => return Err(Stop::Syntax),
        }
        *first = false;
        self.expect("\"")?;
        let key = self.string()?;
        self.space();
        self.expect(":")?;
        Ok(Some(key))
    }

    fn more(&mut self, first: &mut bool) -> Result<bool, Stop> {
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            Some(_) if *first => {}
            _ => return Err(Stop::Syntax),
        }
        *first = false;
        Ok(true)
    }
}

/// A value that is there already. Reading it takes it apart.
pub(super) struct Tree {
    next: Option<Value>,
    open: Vec<Open>,
}

enum Open {
    Array(std::vec::IntoIter<Value>),
    Object(serde_json::map::IntoIter),
}

impl Tree {
    pub(super) fn new(value: Value) -> Tree {
        Tree { next: Some(value), open: Vec::with_capacity(16) }
    }
}

impl Source<'static> for Tree {
    fn next(&mut self) -> Result<Token<'static>, Stop> {
        Ok(match self.next.take().ok_or(Stop::Syntax)? {
            Value::Null => Token::Null,
            Value::Bool(b) => Token::Bool(b),
            // As a client that has read it would write it.
            Value::Number(n) => match n.as_f64().filter(|f| n.is_f64() && f.fract() == 0.0 && f.abs() < 1e15) {
                Some(whole) => Token::Number(Cow::Owned(format!("{whole:.0}"))),
                None => Token::Number(Cow::Owned(n.to_string())),
            },
            Value::String(text) => Token::String(Cow::Owned(text)),
            Value::Array(items) => {
                self.open.push(Open::Array(items.into_iter()));
                Token::Array
            }
            Value::Object(map) => {
                self.open.push(Open::Object(map.into_iter()));
                Token::Object
            }
        })
    }

    fn key(&mut self, _: &mut bool) -> Result<Option<Cow<'static, str>>, Stop> {
        let Some(Open::Object(entries)) = self.open.last_mut() else { return Err(Stop::Syntax) };
        Ok(match entries.next() {
            Some((key, value)) => {
                self.next = Some(value);
                Some(Cow::Owned(key))
            }
            None => {
                self.open.pop();
                None
            }
        })
    }

    fn more(&mut self, _: &mut bool) -> Result<bool, Stop> {
        let Some(Open::Array(items)) = self.open.last_mut() else { return Err(Stop::Syntax) };
        self.next = items.next();
        if self.next.is_none() {
            self.open.pop();
        }
        Ok(self.next.is_some())
    }

    /// Taken as it is, number texts included.
    fn value(&mut self, _: usize) -> Result<Value, Stop> {
        self.next.take().ok_or(Stop::Syntax)
    }

    fn skip(&mut self, _: usize) -> Result<(), Stop> {
        self.next = None;
        Ok(())
    }
}
