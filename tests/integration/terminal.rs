//! Use on a terminal: the banner, and an immediate exit on Ctrl-C.

use nix::pty::openpty;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

#[test]
fn a_terminal_shows_the_url_and_ctrl_c_exits() {
    let terminal = openpty(None, None).expect("a terminal");
    let slave = File::from(terminal.slave);
    let handle = |file: &File| Stdio::from(file.try_clone().expect("a handle"));
    let mut process = Command::new("setsid")
        .args(["--ctty", env!("CARGO_BIN_EXE_proxyrunner"), "--listen", "127.0.0.1:0"])
        // On a terminal, Ctrl-C exits at once, whatever --drain-delay is.
        .args(["--drain-delay", "1h", "--", "python3", "examples/server.py"])
        .stdin(handle(&slave))
        .stdout(handle(&slave))
        .stderr(handle(&slave))
        .spawn()
        .expect("a process");
    drop(slave);
    let mut keyboard = File::from(terminal.master.try_clone().expect("a handle"));
    let screen = BufReader::new(File::from(terminal.master));
    let mut seen = String::new();
    for line in screen.lines() {
        // Reading fails once the last process has closed the terminal.
        let Ok(line) = line else { break };
        seen += &line;
        seen.push('\n');
        if line.contains("ready") {
            keyboard.write_all(b"\x03").expect("Ctrl-C");
        }
    }
    let status = process.wait().expect("a status");
    assert!(status.success(), "{status}: {seen}");
    let url =
        seen.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:") && word.ends_with("/mcp"));
    let url = url.unwrap_or_else(|| panic!("no URL in the banner: {seen}"));
    assert!(seen.contains(&format!("claude mcp add --transport http my-server {url}")), "{seen}");
}
