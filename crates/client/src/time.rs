//! Times as Kubernetes writes them: RFC 3339 in UTC. Knows no calendar but the one in use.

#[cfg(feature = "runtime")]
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_SECONDS: i64 = 24 * 3600;

/// Seconds since 1970 of an RFC 3339 time; `None` where it is none. Parts of a second are left out.
pub fn parse(text: &str) -> Option<i64> {
    parse_micros(text).map(|micros| micros.div_euclid(1_000_000))
}

/// Microseconds since 1970 of an RFC 3339 time.
pub fn parse_micros(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let parts = |text: &str, between: char| -> Option<[i64; 3]> {
        let mut parts = text.split(between).map(number);
        let all = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(all)
    };
    let [year, month, day] = parts(date, '-')?;
    let at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = parts(clock, ':')?;
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = number(hours)? * 60 + number(minutes)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("{fraction:0<6}"))?;
    let micros = number(&digits[..6])?;
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let seconds = days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset * 60;
    sound.then_some(seconds * 1_000_000 + micros)
}

/// A `Time`: `2026-01-31T12:00:00Z`.
pub fn print(seconds: i64) -> String {
    let (date, clock) = split(seconds);
    format!("{date}T{clock}Z")
}

/// A `MicroTime`: `2026-01-31T12:00:00.000000Z`.
#[cfg(any(test, feature = "runtime", feature = "protobuf"))]
pub(crate) fn micros(micros: i64) -> String {
    let (date, clock) = split(micros.div_euclid(1_000_000));
    format!("{date}T{clock}.{:06}Z", micros.rem_euclid(1_000_000))
}

/// Microseconds since 1970.
#[cfg(feature = "runtime")]
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn split(seconds: i64) -> (String, String) {
    let (day, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    // Years begin in March, so that the day that comes and goes is the last.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let date = format!("{year:04}-{month:02}-{day:02}");
    (date, format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60))
}

/// Days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let check = |text: &str, want: Option<i64>| assert_eq!(parse_micros(text), want, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2000-02-29T12:30:15.25Z", Some(951_827_415_250_000));
        check("2026-03-01T01:00:00+01:00", Some(1_772_323_200_000_000));
        check("2026-11-30T09:05:36.123456789Z", Some(1_796_029_536_123_456));
        for wrong in ["", "x", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T25:00:00Z", "é"]
        {
            check(wrong, None);
        }
        for day in (-200_000..200_000).step_by(37) {
            let at = day * DAY_SECONDS * 1_000_000 + 45_296_000_001;
            assert_eq!(parse_micros(&micros(at)), Some(at), "{}", micros(at));
        }
        assert_eq!(print(951_827_415), "2000-02-29T12:30:15Z");
        assert_eq!(micros(951_827_415_250_000), "2000-02-29T12:30:15.250000Z");
    }
}
