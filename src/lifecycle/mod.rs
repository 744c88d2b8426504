//! State machines of a child's life: its end, its restarts, and the detection of hangs. They use neither processes
//! nor clocks; time is an argument (`docs/architecture.md#no-clock`).

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
