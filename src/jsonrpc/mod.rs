//! JSON-RPC messages as bytes: finding their parts ([`scan()`]), and changing a few of them while every other byte
//! stays unchanged ([`rewrite`]). Nothing here builds a tree of values (`docs/architecture.md#bytes`).

pub mod codes;
pub(crate) mod id;
mod lenient;
mod lexer;
mod lookalike;
pub(crate) mod message;
pub(crate) mod object;
#[cfg(feature = "gateway")]
mod portable;
pub(crate) mod propagation;
pub mod rewrite;
pub mod scan;
mod skip;
pub mod splice;
pub mod text;

pub use id::ClientId;
pub(crate) use lenient::{Defect, Spelling, echoed, mended};
pub(crate) use lookalike::{folded, reads_as};
pub use message::{Fault, Kind, Message, Meta, Params, Span};
pub(crate) use message::{LONGEST_NAME, LONGEST_URI};
pub(crate) use object::{Amendment, amend, distinct_members, items, string_member};
pub use object::{member, members, retain, retain_items};
#[cfg(feature = "gateway")]
pub(crate) use portable::unportable;
pub(crate) use propagation::{Carried, carried};
pub use scan::{elements, is_batch, scan};
pub use splice::{Edits, Spliced, break_no_lines, splice, splice_one};
pub(crate) use splice::{FLAT, NoRoom};
pub use text::{integer, kept, text};
pub(crate) use text::{quoted, unescaped};

#[cfg(test)]
mod rewrite_tests;
#[cfg(test)]
mod scan_tests;
