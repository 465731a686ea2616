//! A body with what lets a client not fetch it again: entity tag, time, conditions, ranges. Go's `http.ServeContent`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use jiff::Timestamp;

use super::empty;
use crate::respond::{self, Body};

/// Answers `bytes` or the part of them that is asked for, or 304 where the client has them. `hash` `""`: no tag.
pub(super) fn serve(
    asked: &HeaderMap,
    media: &'static str,
    hash: &str,
    changed: Timestamp,
    bytes: &Bytes,
) -> Response<Body> {
    let tag = (!hash.is_empty()).then(|| super::quoted(hash));
    if is_unchanged(asked, tag.as_ref(), changed) {
        let mut response = empty(304);
        match tag {
            Some(tag) => response.headers_mut().insert(header::ETAG, tag),
            None => response.headers_mut().insert(header::LAST_MODIFIED, date(changed)),
        };
        return response;
    }
    let mut response = match range(asked, bytes.len()) {
        Range::Whole => respond::raw(200, media, bytes.clone()),
        Range::Part(from, to) => {
            let mut response = respond::raw(206, media, bytes.slice(from..=to));
            put(&mut response, header::CONTENT_RANGE, &format!("bytes {from}-{to}/{}", bytes.len()));
            response
        }
        Range::Outside => {
            let mut response = respond::raw(416, "text/plain; charset=utf-8", "invalid range: failed to overlap\n");
            put(&mut response, header::CONTENT_RANGE, &format!("bytes */{}", bytes.len()));
            return response;
        }
    };
    let headers = response.headers_mut();
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::LAST_MODIFIED, date(changed));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// A time as HTTP headers have it.
pub(super) fn date(time: Timestamp) -> HeaderValue {
    let text = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

fn is_unchanged(asked: &HeaderMap, tag: Option<&HeaderValue>, changed: Timestamp) -> bool {
    let text = |name: header::HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    if let Some(known) = text(header::IF_NONE_MATCH) {
        let Some(tag) = tag.and_then(|tag| tag.to_str().ok()) else { return known.trim() == "*" };
        return known.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag);
    }
    let since =
        text(header::IF_MODIFIED_SINCE).map(|text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text));
    since.is_some_and(|since| since.is_ok_and(|since| changed.as_second() <= since.as_second()))
}

enum Range {
    Whole,
    /// First and last byte.
    Part(usize, usize),
    Outside,
}

/// One range is served; whoever asks for several, or only if something holds, gets the whole.
fn range(asked: &HeaderMap, size: usize) -> Range {
    if asked.contains_key(header::IF_RANGE) {
        return Range::Whole;
    }
    let asked = asked.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((from, to)) = asked.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return Range::Whole;
    };
    let (first, last) = match (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        (Ok(first), Err(_)) if to.trim().is_empty() => (first, size.saturating_sub(1)),
        (Err(_), Ok(count)) if from.trim().is_empty() && count > 0 => {
            (size.saturating_sub(count), size.saturating_sub(1))
        }
        _ => return Range::Whole,
    };
    if first < size { Range::Part(first, last) } else { Range::Outside }
}

fn put(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: header::HeaderName, value: &str, want: &str) {
        let asked = HeaderMap::from_iter([(name, value.parse().unwrap())]);
        let at = Timestamp::from_second(1_000_000_000).unwrap();
        let response = serve(&asked, "text/plain", "AB", at, &Bytes::from_static(b"0123456789"));
        let range = response.headers().get(header::CONTENT_RANGE).map_or("", |range| range.to_str().unwrap());
        assert_eq!(format!("{} {range}", response.status().as_u16()).trim(), want, "{value}");
    }

    #[test]
    fn conditions_and_ranges_are_those_of_http() {
        check(header::IF_NONE_MATCH, "\"AB\"", "304");
        check(header::IF_NONE_MATCH, "\"x\", W/\"AB\"", "304");
        check(header::IF_NONE_MATCH, "\"x\"", "200");
        check(header::IF_MODIFIED_SINCE, "Sun, 09 Sep 2001 01:46:40 GMT", "304");
        check(header::IF_MODIFIED_SINCE, "Sun, 09 Sep 2001 01:46:39 GMT", "200");
        check(header::RANGE, "bytes=2-3", "206 bytes 2-3/10");
        check(header::RANGE, "bytes=8-", "206 bytes 8-9/10");
        check(header::RANGE, "bytes=-4", "206 bytes 6-9/10");
        check(header::RANGE, "bytes=10-", "416 bytes */10");
        check(header::RANGE, "bytes=0-1,3-4", "200");
    }
}
