//! Counters of what is dropped, refused or repaired, by name; process-wide, since each is a plain atomic.

use super::family::{Definition, Family, Kind, Value};
use std::sync::atomic::{AtomicU64, Ordering};

/// One counter that only grows.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Counter {
    /// At zero.
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

    /// The count since start.
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
    MALFORMED_FRAMES "proxyrunner_malformed_frames_total" "Frames of a child that were no JSON-RPC message."
    OVERSIZED_FRAMES "proxyrunner_oversized_frames_total" "Frames of a child above --max-frame, thrown away."
    REPAIRED_FRAMES "proxyrunner_repaired_frames_total" "Frames of a child that were accepted although they deviate from the protocol, such as with a byte order mark or a null member."
    LATE_ANSWERS "proxyrunner_late_answers_total" "Answers of a child to requests that had been cancelled, timed out or answered before."
    UNKNOWN_ANSWERS "proxyrunner_unknown_answers_total" "Answers of a child to requests that it was never sent, and errors without an id that are about no known request."
    DROPPED_EVENTS "proxyrunner_dropped_events_total" "Progress and log messages dropped because their client read too slowly or was gone, and answers that gave way since it was gone."
    WITHHELD_MESSAGES "proxyrunner_withheld_messages_total" "Messages of a shared child that could not be told whose they are, and went to nobody."
    UNMATCHED_CLIENT_ANSWERS "proxyrunner_unmatched_client_answers_total" "Answers of clients to questions that no child was waiting with."
    AMBIGUOUS_CANCELLATIONS "proxyrunner_ambiguous_cancellations_total" "Cancellations whose request id was in flight more than once; none was cancelled."
    SHED_REQUESTS "proxyrunner_shed_requests_total" "Requests refused because a bound was reached or the end had begun, with 503 where it can be a status."
    QUEUED_REQUESTS "proxyrunner_queued_requests_total" "Requests that had to wait for a place among those in flight."
    REJECTED_REQUESTS "proxyrunner_rejected_requests_total" "Requests refused as wrong or forbidden, with a 4xx status where it can be one."
    TIMED_OUT_REQUESTS "proxyrunner_timed_out_requests_total" "Requests that no child answered within --request-timeout or --request-max."
    GAVE_WAY "proxyrunner_gave_way_total" "Times a client gave memory back because --max-buffered was used up and it held the most."
    CUT_STREAMS "proxyrunner_cut_streams_total" "Streams cut because --max-buffered was used up and theirs was the slowest reader."
    RESTARTED_CHILDREN "proxyrunner_restarted_children_total" "Children that ended and were followed by another."
    HUNG_CHILDREN "proxyrunner_hung_children_total" "Children that were ended because they hung."
    EVICTED_SESSIONS "proxyrunner_evicted_sessions_total" "Sessions closed at --max-children to make room for another."
    EXPIRED_SESSIONS "proxyrunner_expired_sessions_total" "Sessions closed by --session-idle or --session-max-age."
    EXPIRED_PARKED "proxyrunner_expired_parked_total" "Parked requests cancelled because their client did not come back."
    SHARED_AT_CAP "proxyrunner_shared_at_cap_total" "Clients that asked for an exclusive child and share one, since --max-children was reached or the server runs only once."
    CACHED_LISTS "proxyrunner_cached_lists_total" "Lists that were answered from memory."
    UNCACHED_LISTS "proxyrunner_uncached_lists_total" "Lists that may be answered from memory and were not there, or not fresh."
    OUTDATED_LISTS "proxyrunner_outdated_lists_total" "Lists that were kept, and forgotten since the child said that they changed."
    OPENED_SESSIONS "proxyrunner_opened_sessions_total" "Sessions opened."
    EXCHANGES "proxyrunner_exchanges_total" "Requests sent to a child."
    STARTED_CHILDREN "proxyrunner_started_children_total" "Children started."
    LEFT_OUT_LINES "proxyrunner_left_out_log_lines_total" "Lines of children that were not logged, since there were more than --child-log-rate."
    LOST_LINES "proxyrunner_lost_log_lines_total" "Lines of the log that were lost, since stderr was not read fast enough."
    DROPPED_SPANS "proxyrunner_dropped_spans_total" "Spans that were not delivered: there was no room for them, or no collector took them."
    DROPPED_LOG_RECORDS "proxyrunner_dropped_log_records_total" "Log records that were not delivered to a collector."
    FAILED_METRIC_EXPORTS "proxyrunner_failed_metric_exports_total" "Exports of metrics that no collector took; the next one says as much."
    ENDED_CHILDREN "proxyrunner_ended_children_total" "Children that ended, for whatever reason."
}

/// All counters as metrics.
pub(super) fn families() -> impl Iterator<Item = Family> {
    ALL.iter().map(|counter| {
        let Counter { name, help, .. } = counter;
        let definition = Definition { name, convention: None, unit: "1", kind: Kind::Counter, help };
        definition.alone(Value::Count(counter.value()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let mut names: Vec<_> = ALL.iter().map(|counter| counter.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
