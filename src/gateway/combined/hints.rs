//! Remembers the annotations of tools, for each caller, since servers show callers different ones.

use crate::identity::Principal;
use crate::policy::Hints;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex as Turn;

/// Time for which annotations are used. After that the server is asked again.
const FRESH: Duration = Duration::from_secs(30);
/// Maximum number of remembered tools, and of servers that are asked at the same time.
const MOST: usize = 65_536;
const MOST_ASKED: usize = 1_024;

/// The remembered annotations.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By a keyed hash of the server, the caller and the tool; under no tool, whether the list was read to its end.
    tools: Mutex<HashMap<u64, (Hints, Instant)>>,
    /// One turn for each server and caller, so that calls at the same time cause one question.
    turns: Mutex<HashMap<u64, Arc<Turn<()>>>>,
    state: RandomState,
}

impl Known {
    /// Returns the key of a tool; without one, that of the list as a whole.
    pub fn key(&self, segment: &str, caller: &Principal, tool: Option<&str>) -> u64 {
        self.state.hash_one((segment, caller.name(), tool))
    }

    /// Returns the annotations of a tool if they were read lately.
    pub fn find(&self, key: &impl Fn(Option<&str>) -> u64, tool: &str) -> Option<Hints> {
        let tools = self.tools.lock();
        let fresh = |tool: Option<&str>| {
            let (hints, since) = tools.get(&key(tool))?;
            (since.elapsed() < FRESH).then_some(*hints)
        };
        fresh(Some(tool)).or_else(|| fresh(None))
    }

    /// Remembers the tools of a list, and whether there are no more.
    pub fn learn(&self, key: &impl Fn(Option<&str>) -> u64, found: HashMap<String, Hints>, is_whole: bool) {
        let (now, mut tools) = (Instant::now(), self.tools.lock());
        if tools.len() + found.len() >= MOST {
            tools.clear();
        }
        tools.remove(&key(None));
        tools.extend(found.into_iter().take(MOST).map(|(tool, hints)| (key(Some(&tool)), (hints, now))));
        if is_whole {
            tools.insert(key(None), (Hints::default(), now));
        }
    }

    /// Returns the turn to ask a server for a caller, by the key of the list.
    pub fn turn(&self, key: u64) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock();
        if turns.len() >= MOST_ASKED {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_of_a_caller_and_a_server_and_their_number_is_bounded() {
        let known = Known::default();
        let [ann, bob] = ["ann", "bob"].map(|name| Principal::named(name).expect("a name"));
        let tool = br#"{"annotations":{"destructiveHint":true}}"#;
        let destroys = crate::policy::hints_of(tool, &(0..tool.len()));
        let of = |segment: &'static str, who: &Principal, tool: &str| {
            known.find(&|tool: Option<&str>| known.key(segment, who, tool), tool)
        };
        let learn = |who: &Principal, tool: String, is_whole| {
            known.learn(&|tool: Option<&str>| known.key("a", who, tool), [(tool, destroys)].into(), is_whole);
        };
        learn(&ann, "x".into(), false);
        assert_eq!(of("a", &ann, "x"), Some(destroys));
        assert_eq!((of("a", &ann, "y"), of("a", &bob, "x"), of("b", &ann, "x")), (None, None, None));
        learn(&ann, "x".into(), true);
        assert_eq!(of("a", &ann, "y"), Some(Hints::default()), "the list has no such tool");
        for at in 0..MOST {
            learn(&bob, at.to_string(), false);
        }
        assert!(known.tools.lock().len() <= MOST);
        for at in 0..2 * MOST_ASKED {
            drop(known.turn(at as u64));
        }
        assert!(known.turns.lock().len() <= MOST_ASKED);
    }
}
