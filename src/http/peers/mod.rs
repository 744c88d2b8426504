//! The peers: their connections, the places of these, and the speed at which each peer reads and writes.

mod allowance;
mod connection;
mod connections;
mod frames;
mod lag;
mod mark;
mod pace;
mod persistence;
mod places;
mod rewound;
mod seats;
mod share;
mod socket;
mod watched;
mod wire;

pub(super) use connection::Connection;
pub use connections::Connections;
pub(super) use frames::Frames;
pub(super) use mark::{Mark, Marker};
pub(super) use pace::Pace;
pub use persistence::Persistence;
pub(super) use persistence::Persistent;
pub use places::SPARE;
pub(super) use places::{Places, StreamPlace};
pub(super) use rewound::Rewound;
pub(super) use socket::{Line, Socket};
pub(super) use watched::Watched;
pub(super) use wire::Wire;
