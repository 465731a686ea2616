//! What comes on a connection of exec, attach or port-forward: what decodes encodes, and decodes to the same.

use bytes::BytesMut;
use streams::spdy::frame::{Decoder, Encoder, Frame};
use streams::websocket::Protocol;
use streams::{port_forward, remote_command};
use tokio_tungstenite::tungstenite::Message;

/// Frames of SPDY, in portions whose size is the first byte.
pub fn spdy(bytes: &[u8]) {
    let Some((portion, bytes)) = bytes.split_first() else { return };
    let frames = decode(bytes, usize::from(*portion).max(1));
    let (mut encoder, mut encoded) = (Encoder::default(), BytesMut::new());
    for frame in &frames {
        encoder.encode(frame, &mut encoded).expect("what was decoded is within the limits");
    }
    let again = decode(&encoded, encoded.len().max(1));
    // An empty piece of data says nothing.
    let telling = |frame: &Frame| !matches!(frame, Frame::Data { fin: false, bytes, .. } if bytes.is_empty());
    assert_eq!(
        again.into_iter().filter(telling).collect::<Vec<_>>(),
        frames.into_iter().filter(telling).collect::<Vec<_>>()
    );
}

/// The frames up to the first that is none.
fn decode(bytes: &[u8], portion: usize) -> Vec<Frame> {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for part in bytes.chunks(portion) {
        decoder.push(part);
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
    }
    frames
}

/// A message, in each subprotocol.
pub fn channels(bytes: &[u8]) {
    let all = remote_command::OFFERS.websocket.iter().chain(port_forward::OFFERS.websocket);
    for protocol in all {
        message(protocol, Message::binary(bytes.to_vec()));
        if let Ok(text) = std::str::from_utf8(bytes) {
            message(protocol, Message::text(text));
        }
    }
}

fn message(protocol: &Protocol, message: Message) {
    let Some(said) = protocol.decode(message) else { return };
    // There are more numbers than digits.
    let Some(message) = protocol.encode(&said) else { return };
    assert_eq!(protocol.decode(message), Some(said));
}
