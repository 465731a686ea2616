//! `resource.Quantity`: amounts such as `500m`, `1Gi` or `1e3`, read, compared and printed exactly as Go's package does.

use std::cmp::Ordering;
use std::fmt;

/// Neither finer than this power of ten ..
const NANO: i32 = -9;
/// .. nor greater than this, on the exact (slow) path.
const MAX: u128 = i64::MAX as u128;
/// Digits kept of a number on the slow path; what follows can only round up.
const DIGITS_MAX: usize = 96;

/// An exact amount and the way it is written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    negative: bool,
    /// The amount is `mantissa` times ten to the power of `exponent`.
    mantissa: u128,
    exponent: i32,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `1k`, `500m`.
    Decimal,
    /// `1Ki`.
    Binary,
    /// `1e3`.
    Exponent,
}

/// Why a text is no quantity, in Go's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { negative: false, mantissa: 0, exponent: 0, format: Format::Decimal };

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let rest = rest.trim_start_matches('0');
        let (whole, rest) = split_digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        check_suffix(suffix)?;
        let (format, power) = interpret(suffix).ok_or(QuantityError::Suffix)?;
        // An empty number is a stripped zero.
        let whole_len = whole.len().max(1);
        let shifted = || {
            let mut digits = whole.bytes().chain(fraction.bytes()).map(|digit| i64::from(digit - b'0'));
            let add = |sum: i64, digit| sum.checked_mul(10)?.checked_add(digit);
            digits.try_fold(0, add).ok_or(QuantityError::Numeric)
        };
        let all_zero = whole.is_empty() && fraction.bytes().all(|b| b == b'0');
        let exact = |mantissa: i64, exponent: i32| Quantity {
            negative: negative && mantissa != 0,
            mantissa: mantissa as u128,
            exponent,
            format,
        };
        if all_zero && whole.is_empty() && fraction.is_empty() {
            return Ok(exact(0, 0));
        }
        match format {
            Format::Decimal | Format::Exponent => {
                let exponent = power - fraction.len() as i32;
                if whole_len + fraction.len() <= 18 && exponent >= NANO {
                    return Ok(exact(shifted()?, exponent));
                }
            }
            Format::Binary => {
                let precision = 15 - whole_len as i32 - (power as f32 * 3.0 / 10.0) as i32 - 1;
                if fraction.is_empty()
                    && precision >= 0
                    && let Some(value) = shifted()?.checked_mul(1 << power)
                {
                    return Ok(exact(value, 0));
                }
            }
        }
        Ok(Quantity::parse_slowly(negative, whole, fraction, format, power))
    }

    /// Any number of digits: rounded up to a nano, cut at the greatest integer.
    fn parse_slowly(negative: bool, whole: &str, fraction: &str, format: Format, power: i32) -> Quantity {
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
        let mut exponent = -(fraction.len() as i32);
        let mut rest = false;
        if digits.len() > DIGITS_MAX {
            rest = digits[DIGITS_MAX..].iter().any(|d| *d != 0);
            exponent += (digits.len() - DIGITS_MAX) as i32;
            digits.truncate(DIGITS_MAX);
        }
        match format {
            Format::Binary => {
                for _ in 0..power {
                    double(&mut digits);
                }
            }
            _ => exponent = exponent.saturating_add(power),
        }
        while exponent < NANO && !digits.is_empty() {
            rest |= digits.pop() != Some(0);
            exponent += 1;
        }
        exponent = exponent.max(NANO);
        let first = digits.iter().position(|d| *d != 0).unwrap_or(digits.len());
        let digits = &digits[first..];
        let over = digits.len() as i64 + i64::from(exponent) > 19;
        let mut mantissa = if over { 0 } else { digits.iter().fold(0u128, |n, d| n * 10 + u128::from(*d)) };
        mantissa += u128::from(rest);
        let scaled = |limit: u128| match exponent {
            e if e >= 0 => mantissa.saturating_mul(10u128.saturating_pow(e as u32)) > limit,
            e => mantissa > limit * 10u128.pow(e.unsigned_abs()),
        };
        if over || scaled(MAX) {
            (mantissa, exponent) = (MAX, 0);
        }
        let small = exponent < 0 && mantissa < 10u128.pow(exponent.unsigned_abs());
        let format = if format == Format::Binary && small && mantissa > 0 { Format::Decimal } else { format };
        Quantity { negative: negative && mantissa > 0, mantissa, exponent, format }
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Rounded away from zero to a multiple of ten to the power of `exponent` (-3: milli).
    #[must_use]
    pub fn round_up(mut self, exponent: i32) -> Quantity {
        if self.exponent < exponent {
            self.mantissa = divide_up(self.mantissa, 10u128.saturating_pow((exponent - self.exponent) as u32));
            self.exponent = exponent;
        }
        self
    }

    /// The amount as a whole number, rounded up and cut at the ends of the range.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The amount in thousandths, rounded up and cut at the ends of the range.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// It has no part that is smaller than ten to the power of `exponent`.
    pub fn is_multiple_of(&self, exponent: i32) -> bool {
        self.exponent >= exponent
            || self.mantissa.is_multiple_of(10u128.saturating_pow((exponent - self.exponent) as u32))
    }

    /// Written in the way of `self`.
    #[must_use]
    pub fn add(&self, other: &Quantity) -> Quantity {
        let exponent = self.exponent.min(other.exponent);
        let sum = self.at(exponent).saturating_add(other.at(exponent));
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { negative: sum < 0, mantissa: sum.unsigned_abs(), exponent, format }
    }

    /// Written in the way of `self`.
    #[must_use]
    pub fn sub(&self, other: &Quantity) -> Quantity {
        self.add(&Quantity { negative: !other.negative, ..*other })
    }

    fn scaled_value(&self, exponent: i32) -> i64 {
        let rounded = self.round_up(exponent).at(exponent);
        i64::try_from(rounded).unwrap_or(if self.negative { i64::MIN } else { i64::MAX })
    }

    /// In units of ten to the power of `exponent`, which must not be greater than the own one.
    fn at(&self, exponent: i32) -> i128 {
        let factor = 10u128.saturating_pow(self.exponent.saturating_sub(exponent).max(0) as u32);
        let magnitude = i128::try_from(self.mantissa.saturating_mul(factor)).unwrap_or(i128::MAX);
        if self.negative { -magnitude } else { magnitude }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        let exponent = self.exponent.min(other.exponent);
        self.at(exponent).cmp(&other.at(exponent))
    }
}

/// The canonical form.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        while mantissa.is_multiple_of(10) {
            (mantissa, exponent) = (mantissa / 10, exponent + 1);
        }
        let mut format = self.format;
        if format == Format::Binary {
            let whole = (exponent >= 0).then(|| mantissa.saturating_mul(10u128.saturating_pow(exponent as u32)));
            match whole {
                Some(mut whole) if whole >= 1024 => {
                    let mut suffix = 0;
                    while whole.is_multiple_of(1024) && suffix + 1 < BINARY.len() {
                        (whole, suffix) = (whole / 1024, suffix + 1);
                    }
                    return write!(f, "{whole}{}", BINARY[suffix]);
                }
                // Small or broken amounts are clearer in decimal.
                _ => format = Format::Decimal,
            }
        }
        let shift = exponent.rem_euclid(3);
        (mantissa, exponent) = (mantissa.saturating_mul(10u128.pow(shift as u32)), exponent - shift);
        match format {
            Format::Exponent if exponent == 0 => write!(f, "{mantissa}"),
            Format::Exponent => write!(f, "{mantissa}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(suffix, _)| suffix);
                write!(f, "{mantissa}{suffix}")
            }
        }
    }
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

fn check_suffix(suffix: &str) -> Result<(), QuantityError> {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { Ok(()) } else { Err(QuantityError::Format) }
}

/// The format and the power (of ten, or of two).
fn interpret(suffix: &str) -> Option<(Format, i32)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, *power));
    }
    if let Some(at) = BINARY.iter().position(|name| *name == suffix) {
        return Some((Format::Binary, at as i32 * 10));
    }
    let power = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
    Some((Format::Exponent, power as i32))
}

fn double(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let twice = *digit * 2 + carry;
        (*digit, carry) = (twice % 10, twice / 10);
    }
    if carry > 0 {
        digits.insert(0, carry);
    }
}

fn divide_up(n: u128, by: u128) -> u128 {
    n / by + u128::from(!n.is_multiple_of(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: &str) {
        let printed = match Quantity::parse(text) {
            Ok(quantity) => quantity.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(printed, canonical, "{text}");
    }

    #[test]
    fn quantities_print_in_canonical_form() {
        check("1000m", "1");
        check("0.5Gi", "512Mi");
        check("0.5", "500m");
        check("2.5", "2500m");
        check("1e3", "1e3");
        check("1E3", "1e3");
        check("100e2", "10e3");
        check("1000000k", "1G");
        check("1024Mi", "1Gi");
        check("1536Mi", "1536Mi");
        check("512", "512");
        check("1Ki", "1Ki");
        check("0.5Ki", "512");
        check("0", "0");
        check("0Gi", "0");
        check("-1", "-1");
        check("-1500m", "-1500m");
        check("1.1Gi", "1181116006400m");
        check("0.0000000001", "1n");
        check("9999999999999999999999", "9223372036854775807");
        check("100000000000000000000000000000000000000000000000", "9223372036854775807");
        check("12345678901234567890.5", "9223372036854775807");
        check("007", "7");
        check(".5", "500m");
    }

    #[test]
    fn what_is_no_quantity_says_so_as_go_does() {
        let format = QuantityError::Format.to_string();
        check("lots", &format);
        check("1 Gi", &format);
        check("", &format);
        check("1..5", &format);
        check("1mi", "unable to parse quantity's suffix");
        check("1kk", "unable to parse quantity's suffix");
        check("1e", "unable to parse quantity's suffix");
    }

    #[test]
    fn quantities_compare_and_add() {
        let q = |text| Quantity::parse(text).unwrap();
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("-1") < q("0"));
        assert_eq!(q("1Gi").add(&q("1Mi")).to_string(), "1025Mi");
        assert_eq!(q("1").sub(&q("1500m")).to_string(), "-500m");
        assert_eq!((q("1500m").value(), q("0.0001").milli_value()), (2, 1));
        assert_eq!(q("0.0001").round_up(-3).to_string(), "1m");
        assert!(q("2").is_multiple_of(0) && !q("1500m").is_multiple_of(0));
    }
}
