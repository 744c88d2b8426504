//! Bounds the frames of a connection by HTTP/2 that bring no request forward: pings, settings, priorities, window updates,
//! resets, empty and unknown frames. Each costs time here and nothing there (CVE-2019-9512, -9515, -9518).
//!
//! Requests and responses earn what clients need for them: window updates for the bytes that they receive, and pings that
//! measure the line. Time earns what keeps a silent connection open. A client that sends more than it earns is no client.

use std::time::Instant;

/// Frames that a new connection may send.
const FIRST: i64 = 1_000;
/// Maximum number of frames that a connection can earn, for a client that reads long after it has received.
const MOST: i64 = 10_000;
/// Frames that each second earns, up to [`FIRST`].
const PER_SECOND: u128 = 10;
/// Frames that a request earns: its priority, its first windows, its reset.
const PER_REQUEST: i64 = 8;
/// Bytes of a frame without progress that cost as much as the frame.
const DEAR: usize = 64;
/// Bytes of a part of a body that earn a frame, and maximum number of frames that they earn so. Shorter parts earn
/// nothing, since a client could ask for a response byte by byte.
const PART: usize = 16;
const PER_PART: usize = 4;
/// Bytes of a response that earn a further frame.
const RECEIVED: usize = 1024;
/// Bytes that padding can take from a part of a body.
const PADDING: usize = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// The frames without progress that a connection may still send.
#[derive(Debug)]
pub(super) struct Allowance {
    left: i64,
    /// The time until which the passed time has been counted.
    counted: Instant,
}

impl Allowance {
    /// Returns the allowance of a new connection.
    pub(super) fn new(now: Instant) -> Self {
        Allowance { left: FIRST, counted: now }
    }

    /// Counts a frame of the client; returns false when there are too many. `now` is called only if the allowance is used up.
    pub(super) fn receive(&mut self, kind: u8, flags: u8, length: usize, now: impl Fn() -> Instant) -> bool {
        match (kind, length) {
            (HEADERS, _) => self.earn(PER_REQUEST),
            (DATA, _) if flags & PADDED != 0 && length <= PADDING && flags & END_STREAM == 0 => {
                self.spend(length)
            }
            (DATA, 0) if flags & END_STREAM == 0 => self.spend(0),
            (DATA, PART..) => self.earn(1),
            (DATA | CONTINUATION, 1..) | (DATA, 0) => {}
            _ => self.spend(length),
        }
        self.left >= 0 || self.recover(now())
    }

    /// Counts a frame of the server.
    pub(super) fn send(&mut self, kind: u8, length: usize) {
        if kind == DATA {
            self.earn(((length / PART).min(PER_PART) + length / RECEIVED) as i64);
        }
    }

    fn earn(&mut self, frames: i64) {
        self.left = (self.left + frames).min(MOST);
    }

    fn spend(&mut self, length: usize) {
        self.left -= 1 + (length / DEAR) as i64;
    }

    #[cold]
    fn recover(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted).as_millis();
        let earned = passed * PER_SECOND / 1_000;
        self.left += i64::try_from(earned).map_or(FIRST, |earned| earned.min(FIRST));
        self.counted = now;
        self.left >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    /// A connection whose time a test controls.
    struct Line {
        allowance: Allowance,
        now: Instant,
    }

    impl Line {
        fn new() -> Self {
            let now = Instant::now();
            Line { allowance: Allowance::new(now), now }
        }

        fn receive(&mut self, kind: u8, flags: u8, length: usize) -> bool {
            let now = self.now;
            self.allowance.receive(kind, flags, length, || now)
        }

        /// Returns how many of up to 20,000 such frames pass at once.
        fn burst(&mut self, kind: u8, flags: u8, length: usize) -> usize {
            (0..20_000).take_while(|_| self.receive(kind, flags, length)).count()
        }
    }

    #[test]
    fn frames_without_progress_are_bounded() {
        for (kind, flags, length) in [
            (DATA, 0, 0),
            (DATA, PADDED, 200),
            (2, 0, 5),
            (3, 0, 4),
            (4, 0, 0),
            (4, 1, 0),
            (PING, 0, 8),
            (PING, 1, 8),
            (WINDOW_UPDATE, 0, 4),
            (CONTINUATION, 0, 0),
            (16, 0, 20),
            (0xee, 0, 0),
        ] {
            let passed = Line::new().burst(kind, flags, length);
            assert!((200..=1_000).contains(&passed), "{kind} {flags} {length}: {passed}");
        }
        assert!(Line::new().burst(4, 0, 16_380) < 10, "thousands of settings in each frame");
    }

    #[test]
    fn a_connection_can_be_kept_open_for_long() {
        for (interval, passes) in [(10_000, true), (100, true), (50, false)] {
            let mut line = Line::new();
            let all = (0..100_000).all(|_| {
                line.now += Duration::from_millis(interval);
                line.receive(PING, 0, 8)
            });
            assert_eq!(all, passes, "each {interval} ms");
        }
    }

    #[test]
    fn responses_earn_window_updates_and_pings() {
        for length in [60, 1_000, 16_384] {
            let mut line = Line::new();
            for _ in 0..100_000 {
                line.allowance.send(DATA, length);
                let kinds = [(WINDOW_UPDATE, 4), (WINDOW_UPDATE, 4), (PING, 8)];
                assert!(kinds.into_iter().all(|(kind, bytes)| line.receive(kind, 0, bytes)), "{length}");
            }
        }
        let mut line = Line::new();
        (0..100_000).for_each(|_| line.allowance.send(DATA, 16_384));
        assert_eq!(line.burst(WINDOW_UPDATE, 0, 4), 10_000, "what was earned is bounded");
        let mut line = Line::new();
        let dribbled = (0..20_000).take_while(|_| {
            line.allowance.send(DATA, 1);
            line.receive(WINDOW_UPDATE, 0, 4)
        });
        assert_eq!(dribbled.count(), 1_000, "single bytes earn nothing");
    }

    #[test]
    fn requests_earn_their_own_frames() {
        let mut line = Line::new();
        for _ in 0..100_000 {
            assert!(line.receive(HEADERS, 4, 100));
            for (kind, flags, length) in
                [(2, 0, 5), (DATA, 0, 200), (DATA, END_STREAM, 0), (3, 0, 4), (PING, 0, 8)]
            {
                assert!(line.receive(kind, flags, length), "{kind}");
            }
        }
        let mut line = Line::new();
        assert_eq!(line.burst(DATA, 0, 16_384), 20_000, "an upload");
    }
}
