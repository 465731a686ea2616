//! The formats of strings that Kubernetes checks in custom resources, each as the Go libraries behind it check it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use crate::validate;

/// Whether values are checked against a format of this name. Others are ignored.
pub fn is_known(format: &str) -> bool {
    is_of_number(format) || is_of_string(format)
}

/// Formats that say how wide a number is.
pub fn is_of_number(format: &str) -> bool {
    matches!(format, "int32" | "int64" | "uint32" | "uint64" | "float" | "float32" | "float64" | "double")
}

/// Formats of strings; dashes in their names mean nothing.
pub fn is_of_string(format: &str) -> bool {
    check_of(format).is_some()
}

/// Whether a text is of a format. A format that is not known takes everything.
pub fn matches(format: &str, text: &str) -> bool {
    check_of(format).is_none_or(|check| check(text))
}

fn check_of(format: &str) -> Option<fn(&str) -> bool> {
    Some(match format.replace('-', "").as_str() {
        "bsonobjectid" => |text| text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_request_uri,
        "email" => is_email,
        "hostname" => is_hostname,
        "ipv4" => |text| text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => |text| text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr,
        "mac" => is_mac,
        "uuid" => |text| UUID.is_match(text),
        "uuid3" => |text| UUID3.is_match(text),
        "uuid4" => |text| UUID4.is_match(text),
        "uuid5" => |text| UUID5.is_match(text),
        "isbn" => |text| is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10,
        "isbn13" => is_isbn13,
        "creditcard" => is_credit_card,
        "ssn" => |text| SSN.is_match(text),
        "hexcolor" => |text| HEX_COLOR.is_match(text),
        "rgbcolor" => |text| RGB_COLOR.is_match(text),
        "byte" => |text| BASE64.is_match(text),
        "password" => |_| true,
        "date" => is_date,
        "duration" => is_duration,
        "datetime" => is_date_time,
        "k8sshortname" => |text| validate::dns1123_label(text).is_empty(),
        "k8slongname" => |text| validate::dns1123_subdomain(text).is_empty(),
        _ => return None,
    })
}

macro_rules! regexes {
    ($($name:ident = $pattern:literal;)*) => {
        $(static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a pattern of our own"));)*
    };
}

regexes! {
    UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID3 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID4 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    UUID5 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    SSN = r"^\d{3}[- ]?\d{2}[- ]?\d{4}$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$";
    BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$";
    CREDIT_CARD = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11}|6[27][0-9]{14})$";
    HOSTNAME = r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z0-9\p{S}\p{L}])(-?[a-zA-Z0-9\p{S}\p{L}]){1,62})$";
    DATE = r"^([0-9]{4})-([0-9]{2})-([0-9]{2})$";
    DATE_TIME = r"(?i)^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
    WORDY_DURATION = r"^((?P<n>\d+)\s*([A-Za-zµ]+))";
    EMAIL_ATOMS = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u{80}-\u{10FFFF}]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u{80}-\u{10FFFF}]+)*$";
}

fn is_hostname(text: &str) -> bool {
    HOSTNAME.is_match(text) && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63)
}

/// An absolute URI or an absolute path, as a request may name.
fn is_request_uri(text: &str) -> bool {
    let printable = !text.bytes().any(|b| b <= b' ' || b == 0x7f);
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let has_scheme = scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    printable && (text.starts_with('/') || has_scheme) && escapes_are_right(text)
}

/// Every `%` begins two hexadecimal digits.
fn escapes_are_right(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

/// RFC 5322: an address, or a name with the address in brackets.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((_, address)) => address,
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.strip_prefix('[').and_then(|domain| domain.strip_suffix(']'));
    (quoted || EMAIL_ATOMS.is_match(local))
        && match literal {
            Some(literal) => literal.strip_prefix("IPv6:").unwrap_or(literal).parse::<IpAddr>().is_ok(),
            None => EMAIL_ATOMS.is_match(domain),
        }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let width = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|bits| bits <= width)
}

/// 6, 8 or 20 bytes, between colons, dashes or, two at a time, dots.
fn is_mac(text: &str) -> bool {
    let (separator, digits) = match text.find([':', '-', '.']) {
        Some(2) => (text.as_bytes()[2] as char, 2),
        Some(4) if text.as_bytes()[4] == b'.' => ('.', 4),
        _ => return false,
    };
    let groups: Vec<&str> = text.split(separator).collect();
    groups.iter().all(|group| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit()))
        && (digits == 4 || separator != '.')
        && [6, 8, 20].contains(&(groups.len() * digits / 2))
}

fn without_separators(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = without_separators(text);
    if digits.len() != 10 || !digits.is_char_boundary(9) {
        return false;
    }
    let (first, last) = digits.split_at(9);
    let value = |c: char| c.to_digit(10);
    let Some(first) = first.chars().map(value).collect::<Option<Vec<u32>>>() else { return false };
    let last = if last == "X" { Some(10) } else { last.chars().next().and_then(value) };
    let sum: u32 = first.iter().zip(1..).map(|(digit, weight)| digit * weight).sum();
    last.is_some_and(|last| (sum + last * 10).is_multiple_of(11))
}

fn is_isbn13(text: &str) -> bool {
    let digits = without_separators(text);
    let Some(digits) = digits.chars().map(|c| c.to_digit(10)).collect::<Option<Vec<u32>>>() else { return false };
    let weighted = digits.iter().take(12).enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 });
    digits.len() == 13 && (10 - weighted.sum::<u32>() % 10) % 10 == digits[12]
}

fn is_credit_card(text: &str) -> bool {
    let digits = without_separators(text);
    if !CREDIT_CARD.is_match(&digits) {
        return false;
    }
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => digit,
            _ if digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    DATE.is_match(text) && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339 as go-openapi takes it: month up to 12, day up to 31, no more than a day's hours.
fn is_date_time(text: &str) -> bool {
    if text.len() < 4 {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    let Some((date, time)) = lower.split_once('t').filter(|(_, time)| !time.contains('t')) else { return false };
    let Some(parts) = DATE.captures(date) else { return false };
    let number = |at: usize| parts.get(at).and_then(|part| part.as_str().parse::<u32>().ok()).unwrap_or(0);
    if !(1..=12).contains(&number(2)) || !(1..=31).contains(&number(3)) {
        return false;
    }
    let Some(parts) = DATE_TIME.captures(time) else { return false };
    let number = |at: usize| parts.get(at).and_then(|part| part.as_str().parse::<u32>().ok()).unwrap_or(0);
    number(1) <= 23 && number(2) <= 59 && number(3) <= 59
}

/// A Go duration, or numbers with words: `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano", "nanosecond", "nanoseconds", "nanos"],
        &["us", "µs", "micro", "microsecond", "microseconds", "micros"],
        &["ms", "milli", "millisecond", "milliseconds", "millis"],
        &["s", "sec", "second", "secs", "seconds"],
        &["m", "min", "minute", "mins", "minutes"],
        &["h", "hr", "hour", "hours", "hrs"],
        &["d", "day", "days"],
        &["w", "wk", "week", "weeks", "wks"],
    ];
    if crate::scalar::duration(text).is_ok() {
        return true;
    }
    WORDY_DURATION.captures(text).is_some_and(|parts| {
        let unit = parts.get(3).map_or("", |unit| unit.as_str()).to_lowercase();
        UNITS.iter().any(|names| names.contains(&unit.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_go_takes() {
        #[track_caller]
        fn check(format: &str, right: &[&str], wrong: &[&str]) {
            assert!(is_known(format), "{format}");
            right.iter().for_each(|text| assert!(matches(format, text), "{format} {text}"));
            wrong.iter().for_each(|text| assert!(!matches(format, text), "{format} {text}"));
        }
        check("date", &["2024-02-29"], &["2024-13-01", "2023-02-29", "today"]);
        check(
            "date-time",
            &["2024-01-01T00:00:00Z", "2024-01-01t00:00:00.5+01:00"],
            &["yesterday", "2024-01-01T24:00:00Z"],
        );
        check("byte", &["aGk="], &["***", "aGk"]);
        check("ipv4", &["1.2.3.4"], &["1.2.3", "::1"]);
        check("ipv6", &["::1"], &["::g", "1.2.3.4"]);
        check("cidr", &["10.0.0.0/8", "fe80::/10"], &["1.2.3.4", "10.0.0.0/33"]);
        check("email", &["a@example.com", "Ann <ann@example.com>"], &["not", "a@", "@b"]);
        check("duration", &["1h5m", "3 days"], &["5", "soon"]);
        check("hostname", &["host.example.com", "a"], &["-bad-"]);
        check("uri", &["https://example.com/x", "/x"], &["no spaces here", "x"]);
        check("mac", &["00:11:22:33:44:55", "0011.2233.4455"], &["00:11", "00:11:22:33:44:gg"]);
        check("hexcolor", &["#ff0000", "fff"], &["red"]);
        check("rgbcolor", &["rgb(1,2,3)"], &["rgb(1)", "rgb(1,2,300)"]);
        check("uuid4", &["9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"], &["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
        check("isbn", &["978-3-16-148410-0", "3-16-148410-X"], &["978-3-16-148410-1"]);
        check("creditcard", &["4111111111111111"], &["4111111111111112"]);
        check("ssn", &["123-45-6789"], &["123-45-678"]);
        check("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]);
        check("k8s-short-name", &["short-1"], &["Not_Short"]);
        check("k8s-long-name", &["a.b.c"], &["-.x"]);
        assert!(!is_known("int-word") && is_known("int32"));
    }
}
