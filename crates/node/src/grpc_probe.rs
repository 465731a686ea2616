//! The gRPC kind of probe: one call of `grpc.health.v1.Health/Check` without TLS, as the kubelet makes it. The two messages
//! have one field each and are written and read here.

use crate::grpc::{PREFIX_BYTES, Tasks, frame};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest answer that is read, in bytes; one is 7 of them.
const ANSWER_BYTES_MAX: usize = 4096;
/// The one field of both messages: number 1, a text and a number.
const SERVICE_TAG: u8 = 0x0a;
const STATUS_TAG: u8 = 0x08;
/// By their numbers.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const UNIMPLEMENTED: &str = "12";

/// Asks the server behind a connection how a service of it is.
///
/// # Errors
/// In the kubelet's words.
pub async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc probe failed: {error}");
    let tasks = Tasks::default();
    let (mut sender, connection) =
        http2::handshake(tasks.clone(), TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(request(service)))
        .map_err(|error| failed(&error))?;
    let call = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(&error))?;
        // An answer without a message has the status among its headers.
        let status = |name: &str| {
            let value = body.trailers().and_then(|trailers| trailers.get(name)).or_else(|| head.headers.get(name));
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        match (status("grpc-status").as_str(), status("grpc-message")) {
            ("0", _) => judge(&body.to_bytes()),
            ("", _) => Err(failed(&format_args!("the answer {} is not one of gRPC", head.status))),
            (UNIMPLEMENTED, message) => Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            )),
            (code, message) => Err(failed(&format_args!("rpc error: code = {code} desc = {message}"))),
        }
    };
    tokio::select! {
        // The answer that is there counts, whatever became of the connection.
        biased;
        result = call => result,
        Err(error) = connection => Err(failed(&error)),
    }
}

fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE_TAG);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    frame(&message)
}

fn judge(answer: &[u8]) -> Result<(), String> {
    let status = match answer.get(PREFIX_BYTES..) {
        Some([STATUS_TAG, number, ..]) => STATUSES.get(usize::from(*number)).copied(),
        // What is zero is not written.
        Some([]) => Some(STATUSES[0]),
        _ => None,
    };
    match status {
        Some("SERVING") => Ok(()),
        Some(status) => Err(format!("service unhealthy (responded with {status:?})")),
        None => Err("error: health rpc probe failed: the answer is no HealthCheckResponse".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("db")[..], [0, 0, 0, 0, 4, 10, 2, b'd', b'b']);
        assert_eq!(request(&"x".repeat(200))[4..8], [203, 10, 0xc8, 1]);
        let check = |answer: &[u8], expected: &str| {
            assert_eq!(judge(answer).err().unwrap_or_default(), expected);
        };
        check(&[0, 0, 0, 0, 2, 8, 1], "");
        check(&[0, 0, 0, 0, 2, 8, 2], "service unhealthy (responded with \"NOT_SERVING\")");
        check(&[0, 0, 0, 0, 0], "service unhealthy (responded with \"UNKNOWN\")");
        check(&[], "error: health rpc probe failed: the answer is no HealthCheckResponse");
    }
}
