//! The annotations of a tool, which policies may need before the tool is called for the first time.

use super::Calls;
use crate::audience::Seat;
use crate::children::{OwnChanges, ToolSource, await_initialized};
use crate::client::Client;
use crate::era::Era;
use crate::ingress::{Incoming, Refusal};
use crate::policy::Hints;
use crate::session::Session;

const UNREAD: Refusal = Refusal::Busy("the server has not listed its tools, on which the policies depend");

impl Calls {
    /// Returns the annotations of a tool at the child that would serve the call: that of a session, or of a modern
    /// client.
    ///
    /// # Errors
    /// When no child serves, or it does not list its tools in time.
    pub async fn hints(
        &self,
        session: Option<&Session>,
        client: Client,
        incoming: &Incoming,
        tool: &str,
    ) -> Result<Hints, Refusal> {
        let source = match session.and_then(Session::seat).zip(session) {
            // A legacy client without a seat is refused later, whatever it calls.
            None if session.is_some() => return Ok(Hints::default()),
            None => {
                let shared = self.shared_for(Era::Modern, client, &incoming.operation).await?;
                if !shared.declares("tools") {
                    return Ok(Hints::default());
                }
                ToolSource::Shared(shared)
            }
            Some((seat, session)) => self.tools_at(session, seat, incoming).await?,
        };
        let tools = source.tools().await.ok_or(UNREAD)?;
        tools.hints(tool).ok_or(UNREAD)
    }

    async fn tools_at(
        &self,
        session: &Session,
        seat: &Seat,
        incoming: &Incoming,
    ) -> Result<ToolSource, Refusal> {
        let link = self.serving(session, seat, &incoming.operation).await?;
        Ok(match seat {
            Seat::Exclusive(own) => {
                await_initialized(own, incoming).await;
                let changes = OwnChanges::Legacy(session.list_changes().clone());
                self.children.own_tools(&link, changes)
            }
            Seat::Shared { members, .. } => ToolSource::Shared(self.children.serving(members).ok_or(UNREAD)?),
            Seat::Stateless(seat) => match self.children.serving(&seat.members) {
                Some(shared) => ToolSource::Shared(shared),
                None => self.children.own_tools(&link, OwnChanges::Modern(seat.members.clone())),
            },
        })
    }
}
