//! Answers that the server compressed. Of a stream each piece is passed on as soon as it has come: servers since 1.37 send each event
//! of a watch as a gzip member of its own. Never compresses anything.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;

use crate::error::{Error, Result};
use crate::transport::Body;

/// What a request says whose answer may be compressed.
pub fn accepted() -> (HeaderName, HeaderValue) {
    (ACCEPT_ENCODING, HeaderValue::from_static("gzip"))
}

/// The same answer as it was before the server compressed it.
pub fn decoded(response: Response<Body>) -> Response<Body> {
    if response.headers().get(CONTENT_ENCODING).is_none_or(|coding| coding != "gzip") {
        return response;
    }
    let mut response = response
        .map(|body| Gunzip { body, decoder: Some(MultiGzDecoder::new(Vec::new())), begun: false }.boxed_unsync());
    response.headers_mut().remove(CONTENT_ENCODING);
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

struct Gunzip {
    body: Body,
    /// `None` after the end.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// Something has come: a body without anything in it is one too.
    begun: bool,
}

impl http_body::Body for Gunzip {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let Gunzip { body, decoder, begun } = &mut *self;
        loop {
            let Some(unzip) = decoder else { return Poll::Ready(None) };
            let told = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        *begun |= !data.is_empty();
                        more(unzip, &data)
                    }
                    Err(_) => continue,
                },
                None if !*begun => return Poll::Ready(None),
                None => last(decoder),
            };
            match told {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Poll::Ready(Some(Ok(Frame::data(text.into())))),
                Err(error) => {
                    *decoder = None;
                    let why = format!("what the server compressed cannot be read: {error}");
                    return Poll::Ready(Some(Err(Error::Lost(why))));
                }
            }
        }
    }
}

/// All that these bytes tell.
fn more(unzip: &mut MultiGzDecoder<Vec<u8>>, data: &[u8]) -> io::Result<Vec<u8>> {
    unzip.write_all(data)?;
    unzip.flush()?;
    Ok(std::mem::take(unzip.get_mut()))
}

/// What is left at the end, which must be the end of a member.
fn last(decoder: &mut Option<MultiGzDecoder<Vec<u8>>>) -> io::Result<Vec<u8>> {
    decoder.take().map_or(Ok(Vec::new()), MultiGzDecoder::finish)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::StreamBody;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// What is told of a body that comes in these pieces, after each of them.
    fn told(pieces: Vec<Vec<u8>>) -> Vec<String> {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())).boxed_unsync();
        let response = Response::builder().header(CONTENT_ENCODING, "gzip").body(body).unwrap();
        let mut body = decoded(response).into_body();
        let read = async {
            let mut told = Vec::new();
            while let Some(frame) = body.frame().await {
                told.push(match frame {
                    Ok(frame) => String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap(),
                    Err(error) => format!("! {error}"),
                });
            }
            told
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read)
    }

    #[test]
    fn each_member_is_told_when_it_has_come() {
        assert_eq!(told(vec![member("one\n"), member("two\n")]), ["one\n", "two\n"]);
        let both = [member("one\n"), member("two\n")].concat();
        assert_eq!(told(vec![both.clone()]).concat(), "one\ntwo\n");
        assert_eq!(told(both.iter().map(|byte| vec![*byte]).collect()).concat(), "one\ntwo\n");
        assert_eq!(told(vec![]), [""; 0]);
    }

    #[test]
    fn what_is_cut_or_no_gzip_is_an_error() {
        let mut cut = member("one\n");
        cut.truncate(cut.len() - 3);
        assert!(told(vec![cut]).last().is_some_and(|last| last.starts_with('!')));
        assert!(told(vec![b"plain text".to_vec()]).last().is_some_and(|last| last.starts_with('!')));
    }
}
