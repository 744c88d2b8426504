//! Fits the stages of shutdown into the time between SIGTERM and SIGKILL that the platform gives.

use super::parse::DURATION_OR_ZERO;
use super::reader::Reader;
use crate::child;
use crate::lifecycle::KILLING;
use crate::shutdown::{CLOSING, FLUSHING};
use std::time::Duration;

/// Minimum default time for requests in flight.
const LEAST: Duration = Duration::from_secs(1);

/// A platform, and its time limit for stopping.
#[derive(Clone, Copy, Debug)]
struct Platform {
    name: &'static str,
    /// The platform's default time from SIGTERM to SIGKILL.
    grace: Duration,
    /// The platform's setting for that time.
    setting: &'static str,
    /// A reserve that is kept free.
    margin: Duration,
    /// The default of `--drain-delay`. In Kubernetes, endpoints leave load balancing some seconds after SIGTERM;
    /// elsewhere no delay is needed.
    delay: Duration,
}

const KUBERNETES: Platform = Platform {
    name: "Kubernetes",
    grace: Duration::from_secs(30),
    setting: "terminationGracePeriodSeconds",
    margin: Duration::from_secs(2),
    delay: Duration::from_secs(5),
};

const ELSEWHERE: Platform = Platform {
    name: "Docker",
    grace: Duration::from_secs(10),
    setting: "docker stop --time, or stop_grace_period",
    margin: Duration::from_secs(1),
    delay: Duration::ZERO,
};

/// The time for each stage of shutdown.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    /// `--drain-delay`
    pub delay: Duration,
    /// `--drain-timeout`
    pub drain: Duration,
    /// The time for all stages together.
    pub within: Duration,
    /// A warning if the stages take longer than the platform allows.
    pub warning: Option<String>,
}

/// Reads the settings for shutdown. The child's grace periods are read before.
pub(super) fn read(reader: &mut Reader, child: &child::Settings, in_kubernetes: bool) -> Stopping {
    let platform = if in_kubernetes { KUBERNETES } else { ELSEWHERE };
    let delay = reader.one_or("drain-delay", DURATION_OR_ZERO, platform.delay);
    let usable = platform.grace - platform.margin;
    let child = child.close_grace.saturating_add(child.terminate_grace).saturating_add(KILLING);
    // Connections are closed at the same time as children.
    let after = child.max(CLOSING).saturating_add(FLUSHING);
    let left = usable.saturating_sub(delay).saturating_sub(after).max(LEAST);
    let drain = reader.one_or("drain-timeout", DURATION_OR_ZERO, left);
    let longest = delay.saturating_add(drain).saturating_add(after);
    let warning = (longest > usable).then(|| platform.too_long(longest));
    Stopping { delay, drain, within: longest.max(usable), warning }
}

impl Platform {
    fn too_long(&self, longest: Duration) -> String {
        let Platform { name, grace, setting, margin, .. } = self;
        let needed = longest.saturating_add(*margin).as_secs_f64().ceil();
        format!(
            "stopping may take {} s, but {name} kills after {} s by default: lower --drain-delay, --drain-timeout, \
             --close-grace or --terminate-grace, or give it {needed} s ({setting})",
            longest.as_secs_f64().ceil(),
            grace.as_secs()
        )
    }
}
