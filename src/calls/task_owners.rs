//! The owners of tasks at modern children (io.modelcontextprotocol/tasks). A task's id is no secret: another principal
//! that names it gets what an unknown id gets (security best practices §State Handle Hijacking).

use crate::identity::Principal;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Maximum number of tasks of one principal that are remembered; its oldest are forgotten first.
const MOST_TASKS: usize = 1024;
/// Maximum number of principals whose tasks are remembered; the one whose last task is the oldest is forgotten first.
const MOST_PRINCIPALS: usize = 1024;

/// The tasks of all named principals. Anonymous callers cannot be told apart, so their tasks have no owner.
#[derive(Debug, Default)]
pub(super) struct TaskOwners(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Hashes the ids, with a secret of this process.
    hasher: RandomState,
    owners: HashMap<Principal, Tasks>,
    /// Number of tasks so far.
    count: u64,
}

/// The tasks of one principal.
#[derive(Debug, Default)]
struct Tasks {
    /// Hashes of their ids, from the oldest on.
    ids: VecDeque<u64>,
    /// The number of the last one.
    last: u64,
}

impl TaskOwners {
    /// Notes that a task was created for a principal. `id` is unescaped.
    pub fn note(&self, id: &str, principal: &Principal) {
        if principal.is_anonymous() {
            return;
        }
        let table = &mut *self.0.lock();
        table.count += 1;
        let id = table.hasher.hash_one(id);
        if !table.owners.contains_key(principal) && table.owners.len() >= MOST_PRINCIPALS {
            let oldest = table.owners.iter().min_by_key(|(_, tasks)| tasks.last);
            if let Some(oldest) = oldest.map(|(principal, _)| principal.clone()) {
                table.owners.remove(&oldest);
            }
        }
        let tasks = table.owners.entry(principal.clone()).or_default();
        tasks.last = table.count;
        if tasks.ids.len() >= MOST_TASKS {
            tasks.ids.pop_front();
        }
        tasks.ids.push_back(id);
    }

    /// Returns whether a principal may use a task: whether it was created for it, or nobody is told apart.
    pub fn may_use(&self, id: &str, principal: &Principal) -> bool {
        if principal.is_anonymous() {
            return true;
        }
        let table = self.0.lock();
        let id = table.hasher.hash_one(id);
        table.owners.get(principal).is_some_and(|tasks| tasks.ids.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Principal {
        Principal::named(name).expect("a name")
    }

    #[test]
    fn a_task_belongs_to_the_principal_that_created_it() {
        let owners = TaskOwners::default();
        owners.note("t1", &named("ann"));
        assert!(owners.may_use("t1", &named("ann")));
        assert!(!owners.may_use("t1", &named("bob")) && !owners.may_use("t2", &named("ann")));
        assert!(owners.may_use("t1", &Principal::anonymous()), "nobody is told apart");
    }

    #[test]
    fn a_principal_forgets_its_own_tasks_only_and_memory_is_bounded() {
        let owners = TaskOwners::default();
        owners.note("first", &named("ann"));
        (0..2 * MOST_TASKS).for_each(|n| owners.note(&n.to_string(), &named("flood")));
        assert!(owners.may_use("first", &named("ann")));
        assert!(!owners.may_use("0", &named("flood")));
        (0..2 * MOST_PRINCIPALS).for_each(|n| owners.note("t", &named(&format!("p{n}"))));
        assert_eq!(owners.0.lock().owners.len(), MOST_PRINCIPALS);
        assert!(!owners.may_use("first", &named("ann")), "the oldest is forgotten");
    }
}
