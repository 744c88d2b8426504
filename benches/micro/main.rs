//! Micro benchmarks: `cargo bench --bench micro -- FILTER`.
//!
//! They measure parts of a request without HTTP, pipes and processes. `benches/instructions.py` counts the whole.

mod eras;
mod framing;
mod json;
mod mux;
mod sse;

use criterion::Criterion;

/// The sizes of messages: an ordinary one, one above the sizes that are copied, and a large one.
const SIZES: [(&str, usize); 3] = [("200 B", 200), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    framing::benchmarks(&mut criterion);
    json::benchmarks(&mut criterion);
    sse::benchmarks(&mut criterion);
    mux::benchmarks(&mut criterion);
    eras::benchmarks(&mut criterion);
    criterion.final_summary();
}

/// Returns a call of exactly this length.
fn call(length: usize) -> String {
    filled(
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#,
        r#""}}}"#,
        length,
    )
}

/// Returns a response of exactly this length.
fn response(length: usize) -> String {
    filled(
        r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":""#,
        r#""}],"isError":false}}"#,
        length,
    )
}

/// Returns a text of this length between two others. One of its bytes in 44 begins an escape sequence, as newlines do in
/// ordinary texts.
fn filled(before: &str, after: &str, length: usize) -> String {
    const TEXT: &str = r"the quick brown fox jumps over the lazy dog\n";
    let room = length - before.len() - after.len();
    let text = TEXT.repeat(room / TEXT.len());
    let rest = "x".repeat(room - text.len());
    format!("{before}{text}{rest}{after}")
}
