//! The samplers of `OTEL_TRACES_SAMPLER`.

use crate::trace_context::Context;

/// Decides by a span's trace id and parent whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    root: Root,
    /// Whether a span with a parent is recorded if and only if the parent is.
    parent_based: bool,
}

/// The decision for spans whose parent does not decide.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Root {
    Always,
    Never,
    /// Traces whose id is below this value.
    Below(u64),
}

impl Sampler {
    /// Returns the sampler of this name with its argument; `None` if the name is unknown.
    pub fn named(name: &str, argument: Option<f64>) -> Option<Self> {
        let (root, parent_based) = match name {
            "always_on" => (Root::Always, false),
            "always_off" => (Root::Never, false),
            "traceidratio" => (Root::ratio(argument), false),
            "parentbased_always_on" => (Root::Always, true),
            "parentbased_always_off" => (Root::Never, true),
            "parentbased_traceidratio" => (Root::ratio(argument), true),
            _ => return None,
        };
        Some(Sampler { root, parent_based })
    }

    /// Returns whether a span of this trace is recorded.
    pub fn samples(&self, trace: &[u8; 16], parent: Option<&Context>) -> bool {
        match (parent.filter(|_| self.parent_based), self.root) {
            (Some(parent), _) => parent.is_sampled(),
            (None, Root::Always) => true,
            (None, Root::Never) => false,
            // The last eight bytes are random (Trace Context §3.2.2.3); like the SDKs, this compares the upper 63
            // bits.
            (None, Root::Below(bound)) => {
                let mut random = [0; 8];
                random.copy_from_slice(&trace[8..]);
                u64::from_be_bytes(random) >> 1 < bound
            }
        }
    }
}

/// `parentbased_always_on`
impl Default for Sampler {
    fn default() -> Self {
        Sampler { root: Root::Always, parent_based: true }
    }
}

impl Root {
    fn ratio(argument: Option<f64>) -> Self {
        match argument.unwrap_or(1.0) {
            ratio if ratio >= 1.0 => Root::Always,
            ratio if ratio > 0.0 => Root::Below((ratio * (1u64 << 63) as f64) as u64),
            _ => Root::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(random: u64) -> [u8; 16] {
        (1u128 << 64 | u128::from(random)).to_be_bytes()
    }

    fn parent(flags: u8) -> Context {
        Context { trace: trace(7), span: [1; 8], flags }
    }

    #[test]
    fn a_parent_decides_only_for_parent_based_samplers() {
        let sampled = |name, parent: Option<u8>| {
            let sampler = Sampler::named(name, Some(0.5)).unwrap();
            sampler.samples(&trace(u64::MAX), parent.map(self::parent).as_ref())
        };
        for (name, alone, below_one, below_none) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("traceidratio", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
            ("parentbased_traceidratio", false, true, false),
        ] {
            assert_eq!(sampled(name, None), alone, "{name}");
            assert_eq!(sampled(name, Some(1)), below_one, "{name}");
            assert_eq!(sampled(name, Some(0)), below_none, "{name}");
        }
        assert_eq!(Sampler::named("xray", None), None);
    }

    #[test]
    fn a_ratio_selects_that_share_of_the_ids() {
        let sampler = Sampler::named("traceidratio", Some(0.25)).unwrap();
        let quarter = u64::MAX / 4;
        assert!(sampler.samples(&trace(0), None) && sampler.samples(&trace(quarter - 8), None));
        assert!(!sampler.samples(&trace(quarter + 8), None));
        for (argument, all) in [(None, true), (Some(1.0), true), (Some(9.0), true), (Some(0.0), false)] {
            assert_eq!(
                Sampler::named("traceidratio", argument).unwrap().samples(&trace(u64::MAX), None),
                all,
                "{argument:?}"
            );
        }
    }
}
