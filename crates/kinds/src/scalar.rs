//! Values that are strings in JSON and more than that in Go: times, durations, base64. Each is checked and brought into
//! the form in which Go writes it; the errors are Go's.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

/// Go's layout of `metav1.Time`.
pub const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
/// Go's layout of `metav1.MicroTime`.
pub const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A `metav1.Time` as Go writes it: UTC, whole seconds. `None` is the zero time, which Go writes as `null`.
pub fn time(text: Cow<'_, str>) -> Result<Option<String>, String> {
    if is_canonical_time(text.as_bytes()) {
        return Ok((text != "0001-01-01T00:00:00Z").then(|| text.into_owned()));
    }
    let (seconds, _) = parse_time(&text, RFC3339)?;
    print_time(seconds, &text, |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A `metav1.MicroTime` as Go writes it: UTC, microseconds. `None` is the zero time, which Go writes as `null`.
pub fn micro_time(text: Cow<'_, str>) -> Result<Option<String>, String> {
    let (seconds, micros) = parse_time(&text, RFC3339_MICRO)?;
    let printed = print_time(seconds, &text, |time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string())?;
    Ok(printed.map(|printed| format!("{printed}.{micros:06}Z")))
}

/// These bytes as Go writes them.
pub fn base64_of(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64 as Go writes it; Go reads it with line breaks in it.
pub fn base64(text: Cow<'_, str>) -> Result<String, String> {
    if STANDARD.decode(text.as_bytes()).is_ok() {
        return Ok(text.into_owned());
    }
    let compact: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    // Go does not mind bits of the last character that stand for nothing.
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    match GeneralPurpose::new(&::base64::alphabet::STANDARD, config).decode(compact) {
        Ok(bytes) => Ok(STANDARD.encode(bytes)),
        Err(_) => Err(format!("illegal base64 data at input byte {}", corrupt_at(text.as_bytes()))),
    }
}

/// A Go duration (`1h2m3.5s`) as Go writes it.
pub fn duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(print_duration)
}

/// The nanoseconds of a Go duration.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let quoted = crate::kind::go_quote(text);
    let invalid = || format!("time: invalid duration {quoted}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {quoted}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {} in duration {quoted}", crate::kind::go_quote(unit))),
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().or(Err(invalid()))?.into() };
        let mut scale = unit;
        let mut part = whole * unit;
        for digit in fraction.bytes() {
            scale /= 10;
            part += i128::from(digit - b'0') * scale;
        }
        total += part;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).or(Err(invalid()))
}

/// `1h0m0s`, `1.5s`, `100ms`, `0s`.
pub fn print_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let with_fraction = |n: u64, unit: u64| {
        let digits = format!("{:09}", u128::from(n % unit) * 1_000_000_000 / u128::from(unit));
        let fraction = digits.trim_end_matches('0');
        if fraction.is_empty() { format!("{}", n / unit) } else { format!("{}.{fraction}", n / unit) }
    };
    match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", with_fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", with_fraction(n, 1_000_000)),
        _ => {
            let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
            let seconds = with_fraction(n % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `2006-01-02T15:04:05Z` with every part in its range; the days of a month are left to the exact path.
fn is_canonical_time(text: &[u8]) -> bool {
    let number = |at: usize| {
        let (a, b) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
        if a < 10 && b < 10 { a * 10 + b } else { u8::MAX }
    };
    text.len() == 20
        && (text[4], text[7], text[10], text[13], text[16], text[19]) == (b'-', b'-', b'T', b':', b':', b'Z')
        && number(0) < 100
        && number(2) < 100
        && (1..=12).contains(&number(5))
        && (1..=28).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60
}

fn print_time(
    seconds: i64,
    text: &str,
    print: impl Fn(jiff::civil::DateTime) -> String,
) -> Result<Option<String>, String> {
    const ZERO_SECONDS: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
    if seconds == ZERO_SECONDS {
        return Ok(None);
    }
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => Ok(Some(print(jiff::tz::Offset::UTC.to_datetime(time)))),
        Err(_) => Err(format!("parsing time {}: year out of range", crate::kind::go_quote(text))),
    }
}

/// Go's `time.Parse` with one of the two layouts: Unix seconds and microseconds.
fn parse_time(text: &str, layout: &str) -> Result<(i64, u32), String> {
    let quoted = crate::kind::go_quote(text);
    let unlike = |rest: &str, element: &str| {
        format!("parsing time {quoted} as \"{layout}\": cannot parse {} as \"{element}\"", crate::kind::go_quote(rest))
    };
    let out_of_range = |what: &str| format!("parsing time {quoted}: {what} out of range");
    let mut rest = text;
    let mut number = |element: &str, prefix: &str, digits: usize| -> Result<i16, String> {
        rest = rest.strip_prefix(prefix).ok_or_else(|| unlike(rest, prefix))?;
        // Go reads the hour with one digit too.
        let all = |n: usize| rest.len() >= n && rest.as_bytes()[..n].iter().all(u8::is_ascii_digit);
        let digits = if element == "15" && !all(2) { 1 } else { digits };
        if !all(digits) {
            return Err(unlike(rest, element));
        }
        let (part, after) = rest.split_at(digits);
        rest = after;
        part.parse().or(Err(unlike(part, element)))
    };
    let year = number("2006", "", 4)?;
    let month = number("01", "-", 2)?;
    if !(1..=12).contains(&month) {
        return Err(out_of_range("month"));
    }
    let day = number("02", "-", 2)?;
    let hour = number("15", "T", 2)?;
    if hour > 23 {
        return Err(out_of_range("hour"));
    }
    let minute = number("04", ":", 2)?;
    if minute > 59 {
        return Err(out_of_range("minute"));
    }
    let second = number("05", ":", 2)?;
    if second > 59 {
        return Err(out_of_range("second"));
    }
    let mut micros = 0;
    let fraction = rest.strip_prefix(['.', ',']);
    let digits = fraction.map_or(0, |f| f.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(f.len()));
    if layout == RFC3339_MICRO && digits != 6 {
        return Err(unlike(rest, ".000000"));
    }
    if let Some(fraction) = fraction.filter(|_| digits > 0) {
        let padded: String = fraction[..digits].chars().chain("000000".chars()).take(6).collect();
        micros = padded.parse().unwrap_or(0);
        rest = &fraction[digits..];
    }
    let offset_seconds = match rest.as_bytes() {
        [b'Z', ..] => {
            rest = &rest[1..];
            0
        }
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, ..] if [h1, h2, m1, m2].iter().all(|d| d.is_ascii_digit()) => {
            let two = |a: u8, b: u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let (hours, minutes) = (two(*h1, *h2), two(*m1, *m2));
            if hours > 24 {
                return Err(out_of_range("time zone offset hour"));
            }
            if minutes > 60 {
                return Err(out_of_range("time zone offset minute"));
            }
            rest = &rest[6..];
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return Err(unlike(rest, "Z07:00")),
    };
    if !rest.is_empty() {
        return Err(format!("parsing time {quoted}: extra text: {}", crate::kind::go_quote(rest)));
    }
    let civil = jiff::civil::DateTime::new(year, month as i8, day as i8, hour as i8, minute as i8, second as i8, 0);
    let civil = civil.or(Err(out_of_range("day")))?;
    let utc = jiff::tz::Offset::UTC.to_timestamp(civil).or(Err(out_of_range("year")))?;
    Ok((utc.as_second() - offset_seconds, micros))
}

/// Where Go's decoder stops.
fn corrupt_at(text: &[u8]) -> usize {
    let in_alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let skip = |mut at: usize| {
        while text.get(at).is_some_and(|b| matches!(b, b'\r' | b'\n')) {
            at += 1;
        }
        at
    };
    let mut at = 0;
    let mut quantum = 0;
    loop {
        at = skip(at);
        let Some(byte) = text.get(at) else { return at - quantum };
        at += 1;
        match *byte {
            b if in_alphabet(b) => quantum = (quantum + 1) % 4,
            b'=' if quantum >= 2 => {
                if quantum == 2 {
                    at = skip(at);
                    match text.get(at) {
                        None => return text.len(),
                        Some(b'=') => at += 1,
                        Some(_) => return at - 1,
                    }
                }
                return skip(at);
            }
            _ => return at - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<Option<String>, String>) -> String {
        match result {
            Ok(Some(text)) | Err(text) => text,
            Ok(None) => "null".to_owned(),
        }
    }

    #[test]
    fn times_are_read_and_written_as_go_does() {
        let check = |input: &str, output: &str| assert_eq!(text(time(input.into())), output, "{input}");
        check("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z");
        check("2026-01-02T03:04:05.999Z", "2026-01-02T03:04:05Z");
        check("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z");
        check("0001-01-01T00:00:00Z", "null");
        check("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z");
        check("2023-02-29T00:00:00Z", r#"parsing time "2023-02-29T00:00:00Z": day out of range"#);
        check("2023-13-01T00:00:00Z", r#"parsing time "2023-13-01T00:00:00Z": month out of range"#);
        check("soon", r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#);
        check("2023-01-01", r#"parsing time "2023-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#);
        check("2023-01-01T00:00:00Zx", r#"parsing time "2023-01-01T00:00:00Zx": extra text: "x""#);
    }

    #[test]
    fn micro_times_need_six_digits() {
        let check = |input: &str, output: &str| assert_eq!(text(micro_time(input.into())), output, "{input}");
        check("2026-01-02T03:04:05.000010Z", "2026-01-02T03:04:05.000010Z");
        check(
            "2026-01-02T03:04:05Z",
            r#"parsing time "2026-01-02T03:04:05Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
        );
    }

    #[test]
    fn base64_is_read_as_go_does() {
        let check = |input: &str, output: &str| {
            let printed = base64(input.into()).unwrap_or_else(|error| error);
            assert_eq!(printed, output, "{input}");
        };
        check("YQ==", "YQ==");
        check("YW\nJj", "YWJj");
        check("YR==", "YQ==");
        check("%%", "illegal base64 data at input byte 0");
        check("YQ=", "illegal base64 data at input byte 3");
        check("YWJ", "illegal base64 data at input byte 0");
        check("YQ==x", "illegal base64 data at input byte 4");
    }

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        let check = |input: &str, output: &str| {
            assert_eq!(duration(input).unwrap_or_else(|error| error), output, "{input}");
        };
        check("90m", "1h30m0s");
        check("1.5s", "1.5s");
        check("100ms", "100ms");
        check("0", "0s");
        check("-1h", "-1h0m0s");
        check("x", r#"time: invalid duration "x""#);
        check("5", r#"time: missing unit in duration "5""#);
        check("5d", r#"time: unknown unit "d" in duration "5d""#);
    }
}
