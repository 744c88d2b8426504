//! A connection on which one command follows the other's answer: before it is used, and to Sentinels.

use super::command::command;
use super::reply::{Reply, first_reply_in};
use crate::outbound::Duplex;
use bytes::{Buf, BytesMut};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection, and what has been read from it.
pub(super) struct Wire {
    pub stream: Box<dyn Duplex>,
    pub read: BytesMut,
}

impl Wire {
    pub fn new(stream: Box<dyn Duplex>) -> Self {
        Wire { stream, read: BytesMut::new() }
    }

    /// Sends a command, and returns the reply.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn ask(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        self.stream.write_all(&command(words)).await?;
        self.stream.flush().await?;
        loop {
            if let Some(reply) = next(&mut self.read)? {
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(closed());
            }
        }
    }
}

/// Takes the first reply, if it is complete.
///
/// # Errors
/// When there is no reply.
pub(super) fn next(read: &mut BytesMut) -> io::Result<Option<Reply>> {
    let found = first_reply_in(read);
    let found = found.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad.to_string()))?;
    Ok(found.map(|(reply, length)| {
        read.advance(length);
        reply
    }))
}

/// The peer has closed the connection.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")
}
