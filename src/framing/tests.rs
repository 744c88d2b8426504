//! Tests that the frames do not depend on how the bytes arrive.

use super::*;

fn drain(framer: &mut Framer, out: &mut Vec<Framed>) {
    while let Some(framed) = framer.next() {
        out.push(framed);
    }
}

/// Feeds `chunks` as reads would, and ends the stream.
fn frames(max_frame: usize, chunks: &[&[u8]]) -> Vec<Framed> {
    let mut framer = Framer::new(max_frame);
    let mut out = Vec::new();
    for chunk in chunks {
        framer.buffer().extend_from_slice(chunk);
        drain(&mut framer, &mut out);
    }
    out.extend(framer.finish());
    out
}

fn frame(text: &'static str) -> Framed {
    Framed::Frame { bytes: text.as_bytes().to_vec(), bom: false }
}

#[test]
fn lines_become_frames_at_every_split() {
    let input =
        "{\"a\":1}\n\r\n  \n\u{feff}{\"b\":2}\r\n\u{feff}\n{\"id\":7,\"result\":\"0123456789\"}\r\nend"
            .as_bytes();
    let expected = [
        frame("{\"a\":1}"),
        Framed::Frame { bytes: b"{\"b\":2}".to_vec(), bom: true },
        Framed::Oversized {
            id: Some(b"7".to_vec()),
            length: 30,
            head: b"{\"id\":7,\"result\":\"0123456789\"}".to_vec(),
            given_up: false,
        },
        frame("end"),
    ];
    for first in 0..=input.len() {
        for second in first..=input.len() {
            let chunks = [&input[..first], &input[first..second], &input[second..]];
            assert_eq!(frames(10, &chunks), expected, "{first} {second}");
        }
    }
    let bytes: Vec<_> = input.chunks(1).collect();
    assert_eq!(frames(10, &bytes), expected);
}

#[test]
fn the_limit_counts_the_frame_without_its_trimmings() {
    for line in ["0123456789", "0123456789\r", "\u{feff}0123456789\r"] {
        let line = format!("{line}\n");
        for chunks in [vec![line.as_bytes()], line.as_bytes().chunks(1).collect()] {
            assert!(matches!(&frames(10, &chunks)[..], [Framed::Frame { bytes, .. }] if bytes.len() == 10));
            let [Framed::Oversized { length, head, .. }] = &frames(9, &chunks)[..] else { panic!("{line}") };
            assert_eq!((*length, &head[..]), (10, &b"0123456789"[..]));
        }
    }
}

/// Found by fuzzing.
#[test]
fn only_one_carriage_return_belongs_to_the_line_end() {
    for chunks in
        [vec![&b"{\"error\":{},\"id\":1\r\r\n"[..]], b"{\"error\":{},\"id\":1\r\r\n".chunks(1).collect()]
    {
        let head = b"{\"error\":{},\"id\":1\r".to_vec();
        let id = Some(b"1".to_vec());
        assert_eq!(frames(3, &chunks), [Framed::Oversized { id, length: 19, head, given_up: false }]);
    }
    for chunks in [vec![&b"{\"id\":1\r\n"[..]], b"{\"id\":1\r\n".chunks(1).collect()] {
        let head = b"{\"id\":1".to_vec();
        assert_eq!(frames(3, &chunks), [Framed::Oversized { id: None, length: 7, head, given_up: false }]);
    }
}

#[test]
fn an_oversized_line_costs_no_memory_and_names_its_request() {
    let max_frame = 600_000;
    let mut framer = Framer::new(max_frame);
    let mut out = Vec::new();
    let mut feed = |framer: &mut Framer, bytes: &[u8]| {
        framer.buffer().extend_from_slice(bytes);
        drain(framer, &mut out);
        assert!(framer.buffer.capacity() <= max_frame + 2 * READ);
    };
    feed(&mut framer, b"{\"jsonrpc\":\"2.0\",\"result\":\"");
    for _ in 0..4000 {
        feed(&mut framer, &[b'x'; READ / 2]);
    }
    assert!(framer.buffer.capacity() <= LARGE);
    feed(&mut framer, b"\",\"id\":12}\r\n{}\n");
    let [Framed::Oversized { id, length, head, .. }, Framed::Frame { bytes, .. }] = &out[..] else {
        panic!()
    };
    assert_eq!((id.as_deref(), *length, head.len()), (Some(&b"12"[..]), 4000 * READ as u64 / 2 + 37, HEAD));
    assert_eq!(&bytes[..], b"{}");
}

#[test]
fn a_large_frame_is_moved_with_its_buffer() {
    let mut framer = Framer::new(1 << 20);
    let large = vec![b'x'; 1 << 19];
    let mut out = Vec::new();
    for chunk in large.chunks(READ / 2) {
        framer.buffer().extend_from_slice(chunk);
        drain(&mut framer, &mut out);
    }
    framer.buffer().extend_from_slice(b"\nnext");
    drain(&mut framer, &mut out);
    assert_eq!(out, [Framed::Frame { bytes: large, bom: false }]);
    assert!(framer.buffer.capacity() <= 2 * READ);
    assert_eq!(framer.finish(), Some(frame("next")));
}

#[test]
fn memory_is_released_after_a_burst() {
    let mut framer = Framer::new(1 << 20);
    framer.buffer = Vec::with_capacity(1 << 20);
    framer.buffer.extend_from_slice("x\n".repeat(1 << 18).as_bytes());
    while framer.next().is_some() {}
    assert!(framer.buffer().capacity() <= 2 * READ);
}

#[test]
fn a_buffer_is_used_up_before_it_is_replaced() {
    let mut framer = Framer::new(1 << 20);
    assert!(framer.buffer().capacity() >= 8 * 1024, "room for a read");
    let place = framer.buffer.as_ptr();
    framer.buffer().extend_from_slice(b"1\n2\n");
    let kept = [framer.next(), framer.next()];
    let half = framer.buffer.capacity() - READ / 2;
    framer.buffer().extend_from_slice(&vec![b'x'; half]);
    assert_eq!(framer.next(), None);
    assert_eq!(framer.buffer().as_ptr(), place, "half a read's room is left");
    framer.buffer().extend_from_slice(b"x");
    assert_eq!(framer.next(), None);
    assert!(framer.buffer().capacity() >= half + READ, "less than that is left");
    assert_eq!(kept, [Some(frame("1")), Some(frame("2"))]);
}

#[test]
fn memory_of_dropped_frames_is_reused() {
    let mut framer = Framer::new(1 << 20);
    let place = framer.buffer().as_ptr();
    for _ in 0..8 {
        framer.buffer().extend_from_slice("x\n".repeat(READ / 2).as_bytes());
        while framer.next().is_some() {}
        assert_eq!(framer.buffer().as_ptr(), place);
    }
}

#[test]
fn a_buffer_of_a_quarter_megabyte_is_kept() {
    let mut framer = Framer::new(1 << 20);
    framer.buffer = Vec::with_capacity(256 * 1024);
    assert_eq!(framer.buffer().capacity(), 256 * 1024);
}

#[test]
fn the_end_of_the_stream_ends_the_line() {
    assert_eq!(frames(10, &[b"a\nb"]), [frame("a"), frame("b")]);
    assert_eq!(frames(10, &[b"a\r"]), [frame("a")]);
    assert_eq!(frames(10, &[b"a\n"]), [frame("a")]);
    assert_eq!(frames(10, &[b" \r"]), []);
    assert!(matches!(
        frames(3, &[b"{\"id\":1,\"result\":2}"])[..],
        [Framed::Oversized { id: Some(_), length: 19, .. }]
    ));
    assert!(matches!(frames(3, &[b"0123456789\n", b""])[..], [Framed::Oversized { length: 10, .. }]));
}

/// Returns the id that the seeker finds, fed whole and byte by byte.
fn sought(text: &[u8]) -> Option<Vec<u8>> {
    let mut whole = IdSeeker::default();
    whole.feed(text);
    let mut bytewise = IdSeeker::default();
    text.chunks(1).for_each(|byte| bytewise.feed(byte));
    assert_eq!(whole.id(), bytewise.id(), "{}", String::from_utf8_lossy(text));
    whole.id()
}

#[test]
fn ids_are_found_at_any_position() {
    for (text, id) in [
        (r#"{"id":1,"result":{}}"#, "1"),
        (r#" { "result":{"id":2,"method":"m","a":[{"id":3}]} , "id" : -4 }"#, "-4"),
        (r#"{"result":"\"id\":5, \\","id":"a\"b\\"}"#, r#""a\"b\\""#),
        (r#"{"\u0069\u0064":6,"\u0072esult":1}"#, "6"),
        (r#"{"\u0169\u0064":6,"result":1}"#, "none"),
        (r#"{"result":[[],{},[{"x":"]}"}]],"id":12345678901234567890123}"#, "12345678901234567890123"),
        (r#"{"result":truncated"#, "none"),
        (r#"{"id":7,"result":"trunca"#, "7"),
        (r#"{"id":7"#, "none"),
        (r#"{"id":"7"#, "none"),
        (r#"{"id":null,"result":1}"#, "none"),
        (r#"{"id":1.0,"result":1}"#, "1.0"),
        (r#"{"id":1e5,"result":1}"#, "1e5"),
        (r#"{"level":30,"id":1,"msg":"x"}"#, "none"),
        (r#"{"level":50,"error":"x","id":1}"#, "none"),
        (r#"{"id":1,"error":{"code":-1}}"#, "1"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "none"),
        (r#"{"id":-,"result":1}"#, "none"),
        (r#"{"id":{"id":8},"result":1}"#, "none"),
        (r#"{"id":[9],"result":1}"#, "none"),
        (r#"{"id":1,"result":1,"id":1}"#, "none"),
        (r#"{"id":null,"result":1,"id":1}"#, "none"),
        (r#"{"id":1,"method":"m"}"#, "none"),
        (r#"{"m\u0065thod":"m","id":1}"#, "none"),
        (r#"{"identity":1,"i":2,"idx":3,"":4,"i\d":5}"#, "none"),
        (r#"{"id":1,"result":2} {"id":3}"#, "1"),
        (r#"[{"id":1}]"#, "none"),
        (r#"INFO: {"id":1,"result":1}"#, "none"),
        ("", "none"),
        (r#"{"result":NaN,"id":1}"#, "1"),
        (r#"{"result","id":1}"#, "1"),
        (r#"{}{"id":1,"result":1}"#, "none"),
        (r#"{"id"}:1,"result":1}"#, "none"),
        (r#"{"result":1},"id":1}"#, "none"),
        (r#"{"result":"\u12"x","id":1}"#, "none"),
    ] {
        let found = sought(text.as_bytes());
        assert_eq!(found.as_deref().unwrap_or(b"none"), id.as_bytes(), "{text}");
    }
    assert_eq!(sought(b"{\"result\":\"\xff\n\0\",\"id\":1}").as_deref(), Some(&b"1"[..]));
}

#[test]
fn ids_are_limited_in_length() {
    let with = |id: String| sought(format!(r#"{{"id":{id},"result":1}}"#).as_bytes());
    assert!(with(format!("\"{}\"", "x".repeat(254))).is_some());
    assert!(with(format!("\"{}\"", "x".repeat(255))).is_none());
    assert!(with("1".repeat(256)).is_some() && with("1".repeat(257)).is_none());
}

/// Its id may still arrive, and the next line must not be affected.
#[test]
fn a_line_that_is_given_up_is_thrown_away_to_its_end() {
    let mut framer = Framer::new(1 << 20);
    framer.buffer().extend_from_slice(b"{\"result\":\"xxx");
    assert_eq!(framer.next(), None);
    framer.give_up();
    assert_eq!(framer.held(), 0);
    framer.buffer().extend_from_slice(b"xxx\",\"id\":7}\n{}\n");
    let head = b"{\"result\":\"xxxxxx\",\"id\":7}".to_vec();
    let given_up = Framed::Oversized { id: Some(b"7".to_vec()), length: 26, head, given_up: true };
    assert_eq!([framer.next(), framer.next()], [Some(given_up), Some(frame("{}"))]);
}
