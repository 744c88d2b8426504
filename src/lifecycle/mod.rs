//! A child's life as state machines on borrowed time: how it ends, whether another follows it, and whether it is
//! still there. None of them knows a process or a clock.

mod ending;
mod restarts;
mod silence;
mod stall;

pub use ending::{Action, Event, Graces, KILLING, Lifecycle};
pub use restarts::{Policy, Restarts};
pub use silence::{Patience, Seen, Silence, Verdict};
pub use stall::{Leeway, Stall, Stdin};
