//! Process-wide counters of dropped, refused and repaired messages and of other events. Each is one atomic.

use super::family::{Definition, Family, MetricKind, Value};
use std::sync::atomic::{AtomicU64, Ordering};

/// A monotonic counter.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Counter {
    /// Creates a counter at zero.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Counter { name, help, value: AtomicU64::new(0) }
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the count since the start.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($ident:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub static $ident: Counter = Counter::new($name, $help);)*
        static ALL: &[&Counter] = &[$(&$ident),*];
    };
}

counters! {
    MALFORMED_FRAMES "proxyrunner_malformed_frames_total" "Frames from a child that were not JSON-RPC messages."
    OVERSIZED_FRAMES "proxyrunner_oversized_frames_total" "Frames from a child that exceeded --max-frame and were discarded."
    REPAIRED_FRAMES "proxyrunner_repaired_frames_total" "Frames from a child that were accepted despite deviating from the protocol, such as by a byte order mark or a null member."
    LATE_ANSWERS "proxyrunner_late_answers_total" "Answers from a child to requests that had been cancelled, had timed out or had been answered."
    UNKNOWN_ANSWERS "proxyrunner_unknown_answers_total" "Answers from a child to requests it was never sent, and errors without an id that match no request."
    DROPPED_EVENTS "proxyrunner_dropped_events_total" "Progress and log messages dropped because their client read too slowly or had disconnected, and answers dropped because it had disconnected."
    WITHHELD_MESSAGES "proxyrunner_withheld_messages_total" "Messages from a shared child that were withheld because their client could not be determined."
    UNMATCHED_CLIENT_ANSWERS "proxyrunner_unmatched_client_answers_total" "Answers from clients to questions that no child asked."
    AMBIGUOUS_CANCELLATIONS "proxyrunner_ambiguous_cancellations_total" "Cancellations ignored because several requests with their id were in flight."
    SHED_REQUESTS "proxyrunner_shed_requests_total" "Requests refused because a limit was reached or shutdown had begun, with 503 where a status is possible."
    QUEUED_REQUESTS "proxyrunner_queued_requests_total" "Requests that waited because the in-flight limit was reached."
    REJECTED_REQUESTS "proxyrunner_rejected_requests_total" "Requests rejected as invalid or forbidden, with a 4xx status where a status is possible."
    TIMED_OUT_REQUESTS "proxyrunner_timed_out_requests_total" "Requests not answered within --request-timeout or --request-max."
    GAVE_WAY "proxyrunner_gave_way_total" "Times a client's buffered data was dropped because --max-buffered was reached and the client held the most."
    CUT_STREAMS "proxyrunner_cut_streams_total" "Streams closed because --max-buffered was reached and their reader was the slowest."
    RESTARTED_CHILDREN "proxyrunner_restarted_children_total" "Children that exited and were replaced."
    HUNG_CHILDREN "proxyrunner_hung_children_total" "Children terminated because they hung."
    EVICTED_SESSIONS "proxyrunner_evicted_sessions_total" "Sessions evicted because --max-children or --max-sessions was reached."
    EXPIRED_SESSIONS "proxyrunner_expired_sessions_total" "Sessions closed by --session-idle or --session-max-age."
    EXPIRED_PARKED "proxyrunner_expired_parked_total" "Parked requests cancelled because their client did not retry within --park-timeout."
    SHARED_AT_CAP "proxyrunner_shared_at_cap_total" "Clients that wanted an exclusive child but share one, because --max-children was reached or the server runs only once."
    CACHED_LISTS "proxyrunner_cached_lists_total" "Lists answered from the cache."
    UNCACHED_LISTS "proxyrunner_uncached_lists_total" "Cacheable lists that were missing from the cache or stale."
    OUTDATED_LISTS "proxyrunner_outdated_lists_total" "Cached lists discarded because the child announced a change."
    OPENED_SESSIONS "proxyrunner_opened_sessions_total" "Sessions opened."
    EXCHANGES "proxyrunner_exchanges_total" "Requests sent to a child."
    STARTED_CHILDREN "proxyrunner_started_children_total" "Children started."
    LEFT_OUT_LINES "proxyrunner_left_out_log_lines_total" "Lines from children that were not logged because they exceeded --child-log-rate."
    LOST_LINES "proxyrunner_lost_log_lines_total" "Log lines lost because stderr was read too slowly."
    DROPPED_SPANS "proxyrunner_dropped_spans_total" "Spans lost because the export queue was full or the collector did not accept them."
    DROPPED_LOG_RECORDS "proxyrunner_dropped_log_records_total" "Log records lost because the export queue was full or the collector did not accept them."
    FAILED_METRIC_EXPORTS "proxyrunner_failed_metric_exports_total" "Failed exports of metrics; the next export includes their values."
    ENDED_CHILDREN "proxyrunner_ended_children_total" "Children that exited, for any reason."
}

/// Returns all counters as metrics.
pub(super) fn families() -> impl Iterator<Item = Family> {
    ALL.iter().map(|counter| {
        let Counter { name, help, .. } = counter;
        let definition = Definition { name, convention: None, unit: "1", kind: MetricKind::Counter, help };
        definition.alone(Value::Count(counter.value()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_unique_name() {
        let mut names: Vec<_> = ALL.iter().map(|counter| counter.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
