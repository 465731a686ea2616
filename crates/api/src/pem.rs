//! DER as PEM text, as Go's `encoding/pem` writes it. Reading is `rustls`'.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const LINE_BYTES: usize = 64;

/// One block, ending in a newline. `label` is what it is: `CERTIFICATE`.
pub fn write(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + text.len() / LINE_BYTES + 2 * label.len() + 40);
    out.extend(["-----BEGIN ", label, "-----\n"]);
    for line in text.as_bytes().chunks(LINE_BYTES) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out.extend(["-----END ", label, "-----\n"]);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_of_64_characters() {
        let want = format!("-----BEGIN X-----\n{}\nAAAA\n-----END X-----\n", "A".repeat(64));
        assert_eq!(super::write("X", &[0; 51]), want);
    }
}
