//! Which task belongs to whom, and which tool it runs: what a request for a task refers to. Only tasks whose creation
//! passed here are known; all others are refused.

use super::Hints;
use crate::identity::Principal;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Maximum number of remembered tasks: two generations of half as many.
const MOST: usize = 8_192;
/// Maximum length of a remembered id.
const LONGEST: usize = 1_024;

/// The remembered tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Task>,
    old: HashMap<Key, Task>,
}

/// Who created a task, the server of a gateway that runs it, and its id. Servers that do not know each other may choose
/// the same ids.
type Key = (Principal, Box<str>, String);

/// A task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The tool that it runs.
    pub tool: String,
    /// The annotations of the tool.
    pub hints: Hints,
}

impl Tasks {
    /// Remembers a task.
    pub fn put(&self, owner: &Principal, server: Option<&str>, id: String, task: Task) {
        if id.len() <= LONGEST {
            self.0.lock().put((owner.clone(), server.unwrap_or_default().into(), id), task);
        }
    }

    /// Returns the task of this id at a server, if this principal created it.
    pub fn of(&self, id: &str, server: Option<&str>, owner: &Principal) -> Option<Task> {
        self.0.lock().find((owner.clone(), server.unwrap_or_default().into(), id.to_owned()))
    }
}

impl Generations {
    fn find(&mut self, key: Key) -> Option<Task> {
        if let Some(task) = self.young.get(&key) {
            return Some(task.clone());
        }
        let task = self.old.remove(&key)?;
        self.put(key, task.clone());
        Some(task)
    }

    fn put(&mut self, key: Key, task: Task) {
        if self.young.len() >= MOST / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_known_to_its_creator_only_and_their_number_is_bounded() {
        let [ann, bob] = ["ann", "bob"].map(|name| Principal::named(name).expect("a name"));
        let task = |tool: &str| Task { tool: tool.to_owned(), hints: Hints::default() };
        let tasks = Tasks::default();
        tasks.put(&ann, None, "1".into(), task("a"));
        assert_eq!(tasks.of("1", None, &ann).map(|task| task.tool).as_deref(), Some("a"));
        assert!(tasks.of("1", None, &bob).is_none());
        assert!(tasks.of("1", Some("other"), &ann).is_none(), "each server has its own ids");
        tasks.put(&bob, None, "1".into(), task("b"));
        assert_eq!(tasks.of("1", None, &ann).map(|task| task.tool).as_deref(), Some("a"));
        for at in 0..100_000 {
            tasks.put(&bob, None, at.to_string(), task("b"));
            assert!(tasks.of("1", None, &ann).is_some(), "a task in use stays");
        }
        let generations = tasks.0.lock();
        assert!(generations.young.len() + generations.old.len() <= MOST);
    }
}
