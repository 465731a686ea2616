//! A transport that answers from a list and writes down what it was asked. No sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kemudi_client::transport::full;
use kemudi_client::{Body, Client, Error, Result, Transport};

/// Answers are `CODE BODY`, `CODE header:value BODY`, `lost` for a connection that ends, `refused` for none, `open BODY` for one that goes
/// on, `half BODY` for one that ends in the middle of it.
pub struct Table {
    answers: Mutex<VecDeque<String>>,
    asked: Mutex<Vec<String>>,
    accepted: Mutex<Vec<String>>,
}

impl Table {
    pub fn client(answers: &[&str]) -> (Client, Arc<Table>) {
        let answers = answers.iter().map(|answer| answer.to_string()).collect();
        let table =
            Arc::new(Table { answers: Mutex::new(answers), asked: Mutex::default(), accepted: Mutex::default() });
        (Client::with_transport(table.clone()), table)
    }

    /// What was asked so far, a request a line: `METHOD path body`.
    pub fn asked(&self) -> String {
        self.asked.lock().unwrap().join("\n")
    }

    /// The forms of answer that were asked for, one a line.
    pub fn accepted(&self) -> String {
        self.accepted.lock().unwrap().join("\n")
    }

    fn answer(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        let media = request.headers().get("content-type").map(|media| media.to_str().unwrap().to_string());
        let media = media.filter(|media| media != "application/json").map(|media| format!(" ({media})"));
        let accepted = request.headers().get("accept").map(|form| form.to_str().unwrap().to_string());
        self.accepted.lock().unwrap().push(accepted.unwrap_or_default());
        let body = String::from_utf8_lossy(request.body());
        let line = format!("{} {}{} {body}", request.method(), request.uri(), media.unwrap_or_default());
        self.asked.lock().unwrap().push(line.trim_end().to_string());
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or("500 no more answers".to_string());
        if answer == "lost" {
            return Err(Error::Lost("cut".to_string()));
        }
        if answer == "refused" {
            return Err(refused());
        }
        if let Some(text) = answer.strip_prefix("half ") {
            let half = [Ok(Frame::data(Bytes::from(text.to_string()))), Err(Error::Lost("cut".to_string()))];
            return Ok(Response::new(StreamBody::new(futures_util::stream::iter(half)).boxed_unsync()));
        }
        if let Some(text) = answer.strip_prefix("open ") {
            let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from(text.to_string())))]);
            let open = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            return Ok(Response::new(StreamBody::new(open).boxed_unsync()));
        }
        let (code, mut rest) = answer.split_once(' ').unwrap();
        let mut response = Response::builder().status(code.parse::<u16>().unwrap());
        if let Some((header, after)) = rest.split_once(' ')
            && let Some((name, value)) = header.split_once(':')
            && !header.starts_with('{')
        {
            response = response.header(name, value);
            rest = after;
        }
        Ok(response.body(full(rest.to_string())).unwrap())
    }
}

/// Nothing listens.
pub fn refused() -> Error {
    Error::Connect { server: "https://here".to_string(), why: "refused".to_string(), hint: "", transient: true }
}

impl Transport for Table {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        Box::pin(async { self.answer(request) })
    }
}
