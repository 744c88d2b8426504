//! Checks that a file of servers is read or refused: servers have distinct segments in order, and can be found; problems
//! are lines that begin with the file's name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::gateway::servers_in;

fuzz_target!(|data: &[u8]| {
    check(data);
    // As the only server, and as its name, so that most of the input is reached.
    let around = |before: &str, after: &str| [before.as_bytes(), data, after.as_bytes()].concat();
    check(&around("{\"mcpServers\": {\"time\": ", "}}"));
    check(&around("mcpServers:\n  time:\n    url: http://a/\n    ", "\n"));
    check(&around("{\"mcpServers\": {\"", "\": {\"command\": \"a\"}}}"));
});

fn check(data: &[u8]) {
    match servers_in(data) {
        Ok(segments) => {
            assert!(segments.len() <= 1_000);
            assert!(segments.windows(2).all(|pair| pair[0] < pair[1]), "{segments:?}");
            assert!(segments.iter().all(|segment| (1..=63).contains(&segment.len()) && !segment.contains("__")));
        }
        Err(lines) => {
            assert!((1..=51).contains(&lines.len()), "{lines:?}");
            for line in lines {
                assert!(line.starts_with("servers.json") && !line.chars().any(char::is_control), "{line:?}");
                assert!(line.len() < 2_000, "{line}");
            }
        }
    }
}
