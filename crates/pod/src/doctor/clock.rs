//! How far this machine's clock is from the server's, by the `Date` of an answer. Also of a server whose certificate is not
//! trusted, as a wrong clock is a reason for that: it is asked without any credentials.

use std::time::UNIX_EPOCH;

use http::header::DATE;
use http::{Method, Response};
use kemudi_client::client::request;
use kemudi_client::config::{Ca, Credentials, Impersonate};
use kemudi_client::{Client, Config, time};

use super::Found::{self, Good, Odd};
use crate::{now, output};

/// What is told of, in seconds: `Date` has whole ones, and an answer takes some time.
const APART_SECONDS: i64 = 5;

/// What an answer says of the time, that was asked for and came at these seconds by the clock here. None where it says nothing.
pub fn told<B>(answer: &Response<B>, asked: i64, came: i64) -> Option<Found> {
    let text = answer.headers().get(DATE)?.to_str().ok()?;
    let there = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(compared(there.as_secs() as i64, asked, came))
}

/// The server's second, and when here it can have been.
fn compared(there: i64, asked: i64, came: i64) -> Found {
    let apart = match there {
        there if there > came => there - came,
        there => (there - asked).min(0),
    };
    if apart.abs() < APART_SECONDS {
        return Good("as the server's, to a few seconds".to_string());
    }
    let span = output::human_duration(apart.abs());
    let way = if apart > 0 { "behind" } else { "ahead of" };
    Odd(
        format!("this machine's is {span} {way} the server's, which says {}", time::print(there)),
        "tokens and certificates are judged by it: let it be set (sudo timedatectl set-ntp true, or sudo chronyc makestep; for a \
         pod on its node), or the server's where that one is wrong"
            .to_string(),
    )
}

/// The same of a server that is not trusted, where its clock is far from ours. Nothing is sent but a question that
/// everybody may ask.
pub async fn of_untrusted(config: &Config) -> Option<Found> {
    let unknown = Config {
        ca: Ca::System,
        insecure_skip_tls_verify: true,
        client_certificate: None,
        credentials: Credentials::None,
        impersonate: Impersonate::default(),
        ..config.clone()
    };
    let client = Client::new(unknown).ok()?;
    let asked = now();
    let answer = client.send(request(Method::GET, "/version", None).ok()?).await.ok()?;
    told(&answer, asked, now()).filter(|found| matches!(found, Odd(..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(there: i64, asked: i64, came: i64, want: &str) {
        let got = match compared(there, asked, came) {
            Good(_) => "good".to_string(),
            Odd(what, _) => what.split(" the server's").next().unwrap_or_default().to_string(),
            Found::Bad(what, _) => what,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn clocks_are_compared() {
        let now = 1_800_000_000;
        check(now, now, now, "good");
        // The answer was made at some time between question and answer.
        check(now, now - 100, now + 100, "good");
        check(now - 1, now, now, "good");
        check(now + 3600, now, now + 1, "this machine's is 59m behind");
        check(now - 3600, now, now + 1, "this machine's is 60m ahead of");
        check(now - 400 * 86400, now, now, "this machine's is 400d ahead of");
    }
}
