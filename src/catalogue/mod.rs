//! What children offer, as far as it is remembered: their lists, their tools and the names in them.

pub(crate) mod lists;
pub(crate) mod names;
mod pages;
pub(crate) mod tools;
