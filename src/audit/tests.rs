//! Tests of the writer with real files: rotation, renamed files, and destinations that take nothing.

use super::verify::{Summary, Verifier};
use super::*;
use crate::telemetry::counters;
use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("proxyrunner-audit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(path: &Path) -> Settings {
    Settings {
        target: Target::File(path.to_owned()),
        component: "test".to_owned(),
        content: false,
        key: None,
        max_size: None,
        keep: 3,
        on_failure: OnFailure::Deny,
        fsync: Fsync::Never,
    }
}

/// A log of its own, beside that of the process.
struct Running {
    queue: &'static Queue,
    writer: thread::JoinHandle<()>,
}

impl Running {
    fn start(settings: Settings) -> io::Result<Self> {
        let (sink, tail) = Sink::open(&settings)?;
        let queue: &'static Queue =
            Box::leak(Box::new(Queue::new(settings.on_failure, settings.fsync.gather())));
        let started = Event::own("audit_start", "success");
        let started = match tail {
            tail::Tail::Ends { torn, .. } => started.number("torn_bytes", torn),
            _ => started,
        };
        queue.put(started.finish("test"), Cause::Event);
        let writer = Writer::new(settings, queue, sink, tail, "s".to_owned());
        Ok(Running { queue, writer: thread::spawn(move || writer.run()) })
    }

    fn put(&self, number: u64) {
        self.queue.put(Event::own("http_request", "success").number("n", number).finish("test"), Cause::Call);
    }

    /// Waits until the writer has written or lost everything.
    fn settle(&self) {
        while !self.queue.is_written() {
            // Asleep, so that the wait is no part of a measurement.
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        let _ = self.queue.stop();
        self.writer.join().expect("no panic");
    }
}

fn verified(files: &[PathBuf]) -> Result<Summary, String> {
    let mut verifier = Verifier::new(&[]);
    for path in files {
        let mut source = BufReader::new(fs::File::open(path).map_err(|error| format!("{path:?}: {error}"))?);
        let mut fault = None;
        verify::lines(&mut source, |line, _| {
            match verifier.line(line) {
                Err(verify::Fault::NotALine) => verifier.skip(line.len() as u64),
                Err(found) => fault = Some(format!("{path:?}: {found}")),
                Ok(()) => {}
            }
            fault.is_none()
        })
        .expect("it can be read");
        if let Some(fault) = fault {
            return Err(fault);
        }
    }
    Ok(verifier.finish())
}

#[test]
fn a_new_process_continues_the_chain() {
    let folder = Folder::new("continues");
    let path = folder.file("audit.log");
    for process in 1..=3 {
        let running = Running::start(settings(&path)).expect("it opens");
        (0..10).for_each(|number| running.put(number));
        running.stop();
        let summary = verified(std::slice::from_ref(&path)).expect("no fault");
        assert_eq!((summary.first, summary.last, summary.is_final), (1, process * 12, true));
    }
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_incomplete_last_line_is_closed_off() {
    let folder = Folder::new("torn");
    let path = folder.file("audit.log");
    let running = Running::start(settings(&path)).expect("it opens");
    running.put(1);
    running.stop();
    let whole = fs::read(&path).expect("a file");
    for cut in [1, 20, 200] {
        fs::write(&path, &whole[..whole.len() - cut]).expect("written");
        let running = Running::start(settings(&path)).expect("it opens");
        running.put(2);
        running.stop();
        let summary = verified(std::slice::from_ref(&path)).expect("no fault");
        // Of the three lines the last is cut; only its newline is not missed.
        let last = if cut == 1 { 6 } else { 5 };
        assert_eq!(
            (summary.last, summary.is_final),
            (last, true),
            "the number of the cut line is used again"
        );
        if cut == 1 {
            continue;
        }
        // An alteration of the incomplete line's length is one, too.
        let text = String::from_utf8(fs::read(&path).expect("a file")).expect("UTF-8");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[2].pop();
        fs::write(&path, lines.join("\n") + "\n").expect("written");
        assert!(verified(std::slice::from_ref(&path)).is_err());
    }
}

#[test]
fn an_unreadable_end_begins_a_new_chain_that_verification_reports() {
    let folder = Folder::new("unreadable");
    let path = folder.file("audit.log");
    let running = Running::start(settings(&path)).expect("it opens");
    running.stop();
    let mut text = fs::read(&path).expect("a file");
    text.extend_from_slice(b"something else\n");
    fs::write(&path, &text).expect("written");
    Running::start(settings(&path)).expect("it opens").stop();
    assert!(verified(std::slice::from_ref(&path)).is_err());
}

#[test]
fn a_file_that_is_too_long_is_rotated_and_the_chain_goes_on() {
    let folder = Folder::new("rotation");
    let path = folder.file("audit.log");
    let running = Running::start(Settings { max_size: Some(4_096), ..settings(&path) }).expect("it opens");
    (0..100).for_each(|number| running.put(number));
    running.stop();
    let files: Vec<_> = (1..=3).rev().map(|number| folder.file(&format!("audit.log.{number}"))).collect();
    let summary = verified(&[&files[..], &[path]].concat()).expect("no fault");
    assert_eq!((summary.last, summary.is_final), (102, true));
    assert!(summary.first > 1, "older files are removed");
    assert!(files.iter().all(|file| fs::metadata(file).expect("kept").len() <= 4_096));
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 4);
}

#[test]
fn a_process_continues_the_chain_of_a_file_that_was_just_rotated() {
    let folder = Folder::new("rotated");
    let path = folder.file("audit.log");
    Running::start(settings(&path)).expect("it opens").stop();
    let rotated = folder.file("audit.log.1");
    fs::rename(&path, &rotated).expect("renamed");
    Running::start(settings(&path)).expect("it opens").stop();
    assert_eq!(verified(&[rotated, path]).expect("no fault").last, 4);
}

#[test]
fn a_renamed_file_is_noticed() {
    let folder = Folder::new("renamed");
    let path = folder.file("audit.log");
    let running = Running::start(settings(&path)).expect("it opens");
    running.put(1);
    running.settle();
    let rotated = folder.file("audit.log-20261130");
    fs::rename(&path, &rotated).expect("renamed");
    // The file is looked for at most once a second.
    let mut number = 1;
    while !path.exists() {
        number += 1;
        running.put(number);
        running.settle();
        thread::sleep(Duration::from_millis(20));
    }
    running.stop();
    let summary = verified(&[rotated, path]).expect("no fault");
    assert_eq!((summary.last, summary.is_final), (number + 2, true), "no line is lost");
}

#[test]
fn two_processes_do_not_share_a_file() {
    let folder = Folder::new("shared");
    let path = folder.file("audit.log");
    let first = Running::start(settings(&path)).expect("it opens");
    let refused = Running::start(settings(&path)).err().expect("it is in use").to_string();
    assert!(refused.contains("another process"), "{refused}");
    first.stop();
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let folder = Folder::new("missing");
    assert!(Running::start(settings(&folder.file("missing/audit.log"))).is_err());
    assert!(Running::start(settings(&folder.0)).is_err(), "a folder is not a file");
}

#[test]
fn a_full_disk_denies_calls() {
    let running = Running::start(settings(Path::new("/dev/full"))).expect("it opens");
    while !running.queue.is_failing() {
        thread::yield_now();
    }
    assert!(!running.queue.has_room());
    running.stop();
}

#[test]
fn a_full_disk_drops_lines_and_counts_them() {
    let lost = counters::LOST_AUDIT_LINES.value();
    let running =
        Running::start(Settings { on_failure: OnFailure::Drop, ..settings(Path::new("/dev/full")) });
    let running = running.expect("it opens");
    (0..10).for_each(|number| running.put(number));
    running.settle();
    assert!(counters::LOST_AUDIT_LINES.value() - lost >= 11);
    running.stop();
}

#[test]
fn a_pipe_that_nobody_reads_denies_calls_and_is_written_when_somebody_does() {
    let folder = Folder::new("pipe");
    let path = folder.file("audit.pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let running = Running::start(settings(&path)).expect("it waits for a reader");
    while !running.queue.is_failing() {
        thread::yield_now();
    }
    let mut reader = fs::File::open(&path).expect("a reader");
    while !running.queue.has_room() {
        thread::yield_now();
    }
    // More than a pipe holds: the writer waits for the reader.
    (0..500).for_each(|number| running.put(number));
    let reading = thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("the end");
        text
    });
    running.settle();
    running.stop();
    let read = folder.file("read");
    fs::write(&read, reading.join().expect("no panic")).expect("written");
    let summary = verified(&[read]).expect("no fault");
    assert_eq!((summary.last, summary.is_final), (502, true), "no line is lost");
}

#[test]
fn a_removed_folder_denies_calls_until_it_is_back() {
    let folder = Folder::new("removed");
    let path = folder.file("logs/audit.log");
    fs::create_dir(folder.file("logs")).expect("a folder");
    let running = Running::start(settings(&path)).expect("it opens");
    running.settle();
    let first = folder.file("first");
    fs::rename(folder.file("logs"), &first).expect("renamed");
    let mut number = 0;
    while !running.queue.is_failing() {
        number += 1;
        running.put(number);
        thread::sleep(Duration::from_millis(20));
    }
    fs::create_dir(folder.file("logs")).expect("a folder");
    while running.queue.is_failing() {
        thread::yield_now();
    }
    running.settle();
    running.stop();
    let summary = verified(&[first.join("audit.log"), path.clone()]).expect("no fault");
    assert_eq!((summary.last, summary.is_final), (number + 2, true), "no line is lost");
    assert_ne!(fs::metadata(path).expect("a file").ino(), fs::metadata(first).expect("a folder").ino());
}

#[test]
fn lost_lines_are_stated_in_the_log() {
    let folder = Folder::new("gap");
    let path = folder.file("audit.log");
    let running = Running::start(settings(&path)).expect("it opens");
    running.settle();
    running.queue.lose(3);
    running.put(1);
    running.stop();
    let text = fs::read_to_string(&path).expect("a file");
    assert!(text.contains("\"type\":\"audit_gap\"") && text.contains("\"lost_lines\":3"), "{text}");
    assert_eq!(verified(&[path]).expect("no fault").last, 4);
}

#[test]
fn checkpoints_are_signed_and_a_new_key_is_taken() {
    let folder = Folder::new("key");
    let (path, key_file) = (folder.file("audit.log"), folder.file("key"));
    fs::write(&key_file, "k".repeat(32)).expect("written");
    let key = Key::read(&key_file).expect("a key");
    let settings = Settings { key: Some((key_file, key.clone())), ..settings(&path) };
    let running = Running::start(settings).expect("it opens");
    (0..2_500).for_each(|number| running.put(number));
    running.stop();
    let keys = [key];
    let mut verifier = Verifier::new(&keys);
    for line in fs::read_to_string(&path).expect("a file").lines() {
        verifier.line(line.as_bytes()).expect("no fault");
    }
    let summary = verifier.finish();
    assert_eq!((summary.checkpoints, summary.unproven, summary.is_final), (3, 0, true));
}

#[test]
fn a_changed_key_file_signs_from_then_on() {
    let folder = Folder::new("new-key");
    let (path, key_file) = (folder.file("audit.log"), folder.file("key"));
    fs::write(&key_file, "k".repeat(32)).expect("written");
    let old = Key::read(&key_file).expect("a key");
    let settings = Settings { key: Some((key_file.clone(), old.clone())), ..settings(&path) };
    let (sink, tail) = Sink::open(&settings).expect("it opens");
    let queue: &'static Queue = Box::leak(Box::new(Queue::new(settings.on_failure, settings.fsync.gather())));
    let mut writer = Writer::new(settings, queue, sink, tail, "s".to_owned());
    writer.read_key();
    fs::write(&key_file, "short").expect("written");
    writer.read_key();
    fs::write(&key_file, "n".repeat(32)).expect("written");
    writer.read_key();
    let new = Key::read(&key_file).expect("a key");
    queue.put(Event::own("http_request", "success").finish("test"), Cause::Event);
    let _ = queue.stop();
    writer.run();
    let text = fs::read_to_string(&path).expect("a file");
    assert_eq!(text.matches("\"type\":\"key_change\"").count(), 2, "{text}");
    let keys = [old, new];
    for (keys, expected) in [(&keys[..], Some((3, 0, true))), (&keys[..1], None)] {
        let mut verifier = Verifier::new(keys);
        let verified = text.lines().try_for_each(|line| verifier.line(line.as_bytes()));
        let summary = verifier.finish();
        let found = (summary.checkpoints, summary.unproven, summary.is_final);
        assert_eq!(verified.is_ok().then_some(found), expected);
    }
}

#[test]
#[ignore = "a measurement"]
fn the_cost_of_the_writer() {
    let folder = Folder::new("cost");
    let running = Running::start(settings(&folder.file("audit.log"))).expect("it opens");
    let usage = || nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("usage");
    let cpu = |usage: nix::sys::resource::Usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()
    };
    let before = cpu(usage());
    for number in 0..100_000 {
        running.put(number);
        if number % 100 == 0 {
            running.settle();
        }
    }
    running.settle();
    let took = cpu(usage()) - before;
    eprintln!("{} ns of CPU for each line, queue and write included", took * 1_000 / 100_000);
    running.stop();
}
