//! JSON-RPC messages as bytes: where their parts are ([`scan()`]) and how to change a few of them
//! while every other byte stays ([`rewrite`]). Nothing here builds a tree of values.

pub mod codes;
pub mod id;
mod lenient;
mod lexer;
pub mod message;
pub mod object;
pub mod propagation;
pub mod rewrite;
pub mod scan;
mod small;
pub mod splice;
pub mod text;

pub use id::ClientId;
pub use lenient::{Defect, Spelling, echoed, mended};
pub use message::{Fault, Kind, Message, Meta, Params, Span};
pub use object::{Amendment, amend, distinct_members, items, member, retain, string_member};
pub use propagation::{Carried, carried};
pub use rewrite::{Changes, error, result};
pub use scan::{LONGEST_NAME, LONGEST_URI, Members, elements, is_batch, members, scan};
pub use splice::{Edits, FLAT, NoRoom, Spliced, break_no_lines, splice};
pub use text::{integer, kept, quoted, text, unescaped};

#[cfg(test)]
mod rewrite_tests;
#[cfg(test)]
mod scan_tests;
