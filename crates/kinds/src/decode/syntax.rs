//! What is wrong with a text that is not JSON, in the words of Go's scanner. Only texts that have failed come here.

/// The error of the first byte that is wrong, `None` where the text is JSON.
pub(super) fn check(text: &str, depth_max: usize) -> Option<String> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, depth: 0, depth_max };
    let result = scanner.value().and_then(|()| match scanner.peek() {
        None => Ok(()),
        Some(_) => scanner.invalid("after top-level value"),
    });
    result.err()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl Scanner<'_> {
    fn value(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.invalid("looking for beginning of value"),
        }
    }

    fn object(&mut self) -> Result<(), String> {
        self.enter()?;
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            match self.peek() {
                Some(b'"') => self.string()?,
                _ => return self.invalid("looking for beginning of object key string"),
            }
            match self.peek() {
                Some(b':') => self.at += 1,
                _ => return self.invalid("after object key"),
            }
            self.value()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return self.invalid("after object key:value pair"),
            }
        }
    }

    fn array(&mut self) -> Result<(), String> {
        self.enter()?;
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            self.value()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return self.invalid("after array element"),
            }
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.bytes.get(self.at) {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                match self.bytes.get(self.at) {
                                    Some(b) if b.is_ascii_hexdigit() => self.at += 1,
                                    _ => return self.invalid("in \\u hexadecimal character escape"),
                                }
                            }
                        }
                        _ => return self.invalid("in string escape code"),
                    }
                }
                Some(b) if *b >= 0x20 => self.at += 1,
                _ => return self.invalid("in string literal"),
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for (at, expected) in word.bytes().enumerate() {
            if self.bytes.get(self.at) != Some(&expected) {
                debug_assert!(at > 0);
                return self.invalid(&format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.invalid("in numeric literal"),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
                return self.invalid("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
                return self.invalid("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn enter(&mut self) -> Result<(), String> {
        self.at += 1;
        self.depth += 1;
        if self.depth > self.depth_max { Err("exceeded max depth".to_owned()) } else { Ok(()) }
    }

    fn leave(&mut self) -> Result<(), String> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn invalid<T>(&self, context: &str) -> Result<T, String> {
        Err(match self.bytes.get(self.at) {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", quote(*byte)),
        })
    }
}

/// Go takes every byte for a character.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => {
            let quoted = crate::kind::go_quote(char::from(byte).encode_utf8(&mut [0; 4]));
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}
