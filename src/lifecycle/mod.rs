//! A child's life as state machines on borrowed time: how it ends, whether another follows it, and whether it is
//! still there. None of them knows a process or a clock.

mod ending;
mod restarts;
mod silence;
mod stall;

pub use ending::Event;
pub(crate) use ending::{Action, Graces, KILLING, Lifecycle};
pub use restarts::Policy;
pub(crate) use restarts::Restarts;
pub(crate) use silence::{Diagnosis, Patience, Seen, Silence};
pub(crate) use stall::{Leeway, Stall, Stdin};
