//! The cached offer of the children: their lists, their tools and the names in them.

pub(crate) mod lists;
pub(crate) mod names;
mod pages;
pub(crate) mod tools;
