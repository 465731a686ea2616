//! Reads an object or a list in JSON, writes it in protobuf as a Go server does: what `cargo xtask bench --client` measures with.

use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut text = Vec::new();
    let read = std::io::stdin().read_to_end(&mut text).map_err(|why| why.to_string());
    let value = read.and_then(|_| serde_json::from_slice(&text).map_err(|why| why.to_string()));
    let message = value.and_then(|value| kinds::protobuf::encode(&value).ok_or("it has no protobuf".to_string()));
    match message.and_then(|message| std::io::stdout().write_all(&message).map_err(|why| why.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("protobuf: {why}");
            ExitCode::FAILURE
        }
    }
}
