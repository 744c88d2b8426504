//! The cached text of the metrics. Writing it takes the time of many requests, so a peer that only scrapes would
//! delay others.

use crate::budget::Charged;
use crate::telemetry::metrics::Format;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Maximum number of texts that are written in one [`PERIOD`]; further scrapes get the last one.
const MOST: u32 = 200;
const PERIOD: Duration = Duration::from_secs(1);

/// The last texts, one for each format.
#[derive(Debug, Default)]
pub struct Scrapes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    made: u32,
    /// Not message bytes, so they have no charge.
    latest: [Option<Vec<u8>>; 2],
}

impl Scrapes {
    /// Returns the metrics in a format, written by `write` unless too many texts were written within the last second.
    pub fn text(&self, format: Format, now: Instant, write: impl FnOnce() -> Vec<u8>) -> Charged {
        let mut state = self.0.lock();
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= PERIOD) {
            (state.began, state.made) = (Some(now), 0);
        }
        let at = usize::from(format == Format::OpenMetrics);
        if let Some(latest) = &state.latest[at]
            && state.made >= MOST
        {
            return Charged::own(latest.clone());
        }
        state.made += 1;
        let text = write();
        state.latest[at] = Some(text.clone());
        Charged::own(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_scrapes_get_the_last_text_until_a_second_is_over() {
        let (scrapes, now) = (Scrapes::default(), Instant::now());
        let scrape = |n: u32, at| scrapes.text(Format::Text, at, || n.to_string().into_bytes());
        for n in 0..MOST {
            assert_eq!(scrape(n, now), n.to_string().as_bytes());
        }
        assert_eq!(scrape(MOST, now), (MOST - 1).to_string().as_bytes());
        let other = scrapes.text(Format::OpenMetrics, now, || b"open".to_vec());
        assert_eq!(other, b"open", "each format has its first text");
        assert_eq!(scrape(MOST, now + PERIOD), MOST.to_string().as_bytes());
    }
}
