//! The times of cron jobs as text: what is wrong with a schedule or a time zone, in the words of upstream's parser.
//! Computes no times and reads no time zone files.

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Minute, hour, day of month, month, day of week: least, greatest and the names from the least on.
const FIELDS: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];

/// Five fields, or a word like `@daily`.
///
/// # Errors
/// What is wrong with the schedule.
pub fn parse(schedule: &str) -> Result<(), String> {
    let mut rest = schedule;
    if rest.starts_with("TZ=") || rest.starts_with("CRON_TZ=") {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest.trim());
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(FIELDS).try_for_each(|(field, bounds)| field.split(',').try_for_each(|part| range(part, bounds)))
}

fn descriptor(word: &str) -> Result<(), String> {
    const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    match word.strip_prefix("@every ") {
        Some(every) if every.ends_with(['s', 'm', 'h']) && every.starts_with(|c: char| c.is_ascii_digit()) => Ok(()),
        Some(every) => Err(format!("failed to parse duration {word}: time: invalid duration {every:?}")),
        None if WORDS.contains(&word) => Ok(()),
        None => Err(format!("unrecognized descriptor: {word}")),
    }
}

/// `*`, `5`, `1-5`, each with `/step`.
fn range(text: &str, (least, greatest, names): (u32, u32, &[&str])) -> Result<(), String> {
    let mut slashes = text.split('/');
    let (span, step) = (slashes.next().unwrap_or_default(), slashes.next());
    if slashes.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let mut ends = span.split('-');
    let (from, to) = (ends.next().unwrap_or_default(), ends.next());
    let (start, mut end) = match from {
        "*" | "?" => (least, greatest),
        _ => {
            let start = number(from, least, names)?;
            let end = to.map_or(Ok(start), |to| number(to, least, names))?;
            if ends.next().is_some() {
                return Err(format!("too many hyphens: {text}"));
            }
            (start, end)
        }
    };
    let mut by = 1;
    if let Some(step) = step {
        by = number(step, least, &[])?;
        if to.is_none() {
            end = greatest;
        }
    }
    match () {
        () if start < least => Err(format!("beginning of range ({start}) below minimum ({least}): {text}")),
        () if end > greatest => Err(format!("end of range ({end}) above maximum ({greatest}): {text}")),
        () if start > end => Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}")),
        () if by == 0 => Err(format!("step of range should be a positive number: {text}")),
        () => Ok(()),
    }
}

fn number(text: &str, least: u32, names: &[&str]) -> Result<u32, String> {
    if let Some(at) = names.iter().position(|name| *name == text.to_lowercase()) {
        return Ok(least + at as u32);
    }
    match text.parse::<i64>() {
        Ok(negative) if negative < 0 => Err(format!("negative number ({negative}) not allowed: {text}")),
        Ok(value) => Ok(value.try_into().unwrap_or(u32::MAX)),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

/// Why a text is no name of a time zone. Without reading files, a name is known by its form and its first part.
pub fn zone_error(zone: &str) -> Option<String> {
    const AREAS: [&str; 16] = [
        "Africa",
        "America",
        "Antarctica",
        "Arctic",
        "Asia",
        "Atlantic",
        "Australia",
        "Brazil",
        "Canada",
        "Chile",
        "Etc",
        "Europe",
        "Indian",
        "Mexico",
        "Pacific",
        "US",
    ];
    const ALONE: [&str; 31] = [
        "CET",
        "CST6CDT",
        "Cuba",
        "EET",
        "EST",
        "EST5EDT",
        "Egypt",
        "Eire",
        "GB",
        "GMT",
        "Greenwich",
        "HST",
        "Hongkong",
        "Iceland",
        "Iran",
        "Israel",
        "Jamaica",
        "Japan",
        "Libya",
        "MET",
        "MST",
        "MST7MDT",
        "NZ",
        "PST8PDT",
        "Poland",
        "Portugal",
        "Singapore",
        "Turkey",
        "UTC",
        "WET",
        "Zulu",
    ];
    if zone.is_empty() {
        return Some("timeZone must be nil or non-empty string".to_owned());
    }
    let unknown = || Some(format!("unknown time zone {zone}"));
    let right = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
        (1..=14).contains(&part.len())
            && part.chars().all(allowed)
            && part != "."
            && part != ".."
            && !part.starts_with('-')
    };
    if !zone.split('/').all(right) {
        return unknown();
    }
    if zone.eq_ignore_ascii_case("local") {
        return Some("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned());
    }
    let known = match zone.split_once('/') {
        Some((area, _)) => AREAS.contains(&area),
        None => ALONE.contains(&zone),
    };
    if known { None } else { unknown() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let check =
            |schedule: &str, want: &str| assert_eq!(parse(schedule).err().unwrap_or_default(), want, "{schedule}");
        check("*/5 0-6/2 1,15 jan-mar MON", "");
        check("@daily", "");
        check("@often", "unrecognized descriptor: @often");
        check("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
        check("61 * * * *", "end of range (61) above maximum (59): 61");
        check("* * 0 * *", "beginning of range (0) below minimum (1): 0");
        check("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1");
        check("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
    }

    #[test]
    fn zones() {
        assert_eq!(zone_error("Europe/Berlin"), None);
        assert_eq!(zone_error("Mars/Phobos").as_deref(), Some("unknown time zone Mars/Phobos"));
        assert_eq!(zone_error("../etc").as_deref(), Some("unknown time zone ../etc"));
    }
}
