//! The error of a response that breaks off.

use std::fmt;

/// A response that ends before it is complete. Its connection, or its stream by HTTP/2, is ended, so that the client can
/// tell.
#[derive(Clone, Copy, Debug)]
pub struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of the server broke off")
    }
}

impl std::error::Error for Cut {}
