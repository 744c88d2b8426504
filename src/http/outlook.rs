//! How a client sees the answer to its request: lists without what it may not use, and with cursors of its own.

use crate::jsonrpc::{self, Edits, Spliced, codes, members, rewrite, splice, unescaped};
use crate::policy::{View, make_private};
use crate::upstream::{Purpose, Upstream};
use memchr::memmem;
use std::sync::Arc;

/// The changes to an answer before its client gets it.
#[derive(Debug)]
pub struct Outlook {
    /// The caller's view by the policies.
    pub view: Option<Box<View>>,
    /// The cursors of a list, where callers are identified.
    pub cursors: Option<Cursors>,
}

/// Seals the cursors of one list.
#[derive(Debug)]
pub struct Cursors {
    upstream: Arc<Upstream>,
    purpose: Purpose,
    /// The request's id as the client wrote it, for an answer whose cursor cannot be sealed.
    id: Vec<u8>,
}

impl Outlook {
    /// Returns the answer as the client may see it.
    pub async fn apply(self, answer: Spliced) -> Spliced {
        let answer = match self.view {
            Some(view) => view.apply(answer).await,
            None => answer,
        };
        match self.cursors {
            Some(cursors) => cursors.seal(answer),
            None => answer,
        }
    }
}

impl Cursors {
    /// Returns the cursors of a request's answer.
    pub fn new(upstream: &Arc<Upstream>, purpose: Purpose, id: &[u8]) -> Self {
        Cursors { upstream: Arc::clone(upstream), purpose, id: id.to_vec() }
    }

    fn seal(self, answer: Spliced) -> Spliced {
        if !mentions_cursor(&answer) {
            return answer;
        }
        self.sealed(answer).unwrap_or_else(|why| {
            Spliced::from(rewrite::error(Some(&self.id), codes::INTERNAL_ERROR, why, None))
        })
    }

    /// Seals the cursor. Every other byte stays, except that caches must not give the page to others.
    fn sealed(&self, answer: Spliced) -> Result<Spliced, &'static str> {
        let frame = answer.flatten().map_err(|_| "there is no room to seal the cursor of the list")?;
        let message = jsonrpc::scan(&frame).map_err(|_| "the server's answer is no message")?;
        let Some(result) = &message.result else { return Ok(Spliced::from(frame)) };
        let mut edits = Edits::new();
        for (key, value) in members(&frame, result.clone()) {
            // An empty cursor and one of another type are the end of the list to most clients.
            let is_cursor = frame[value.start] == b'"' && value.len() > b"\"\"".len();
            if is_cursor && *unescaped(&frame[key]) == *b"nextCursor" {
                let sealed = self.upstream.seal().seal_cursor(&frame[value.clone()], &self.purpose)?;
                edits.replace(&value, format!("\"{sealed}\"").as_bytes());
            }
        }
        if edits.is_empty() {
            return Ok(Spliced::from(frame));
        }
        make_private(&frame, result, &mut edits);
        Ok(splice(&frame, &message.object, edits))
    }
}

/// Returns whether an answer may have a cursor, in any spelling.
fn mentions_cursor(answer: &Spliced) -> bool {
    let mentions =
        |word: &[u8]| answer.segments().iter().any(|segment| memmem::find(segment, word).is_some());
    mentions(b"nextCursor") || mentions(b"\\u00")
}
