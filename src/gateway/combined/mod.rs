//! All servers as one, at `/mcp`: a stateless server of the modern era within the gateway (docs/architecture.md#all-servers).
//!
//! The gateway runs a relay as its only child, which copies its pipes to a socket of this process. So `/mcp` is an
//! endpoint like a sidecar's: sessions, both eras, limits and cancellation are those of every other child. Each request
//! names its caller, and goes to the servers as the gateway's own requests at `/servers/NAME/mcp` do.
//!
//! | files | subject |
//! | --- | --- |
//! | `connection` | the frames of one relay: requests, cancellations, answers |
//! | `ask`, `events` | a request to one server, and its answer |
//! | `calls`, `asking` | requests that one server answers; its questions to the client |
//! | `names`, `tools`, `owners`, `headers` | which server a name or a URI belongs to; what calls repeat in headers |
//! | `lists`, `collect`, `kind`, `discover` | what all servers answer together |
//! | `search` | two tools in place of all (`--search-tools`) |
//! | `schema`, `uri` | what items of lists must be |
//! | `listen`, `watch`, `changes` | subscriptions of clients; changes at the servers |
//! | `locate`, `annotations`, `hints`, `decided` | what policies decide on, and what they have decided |
//! | `request`, `state` | a request and its caller; what all share |

mod annotations;
mod ask;
mod asking;
mod calls;
mod changes;
mod collect;
mod connection;
mod decided;
mod discover;
mod events;
mod headers;
mod hints;
mod kind;
mod listen;
mod lists;
mod locate;
mod names;
mod owners;
mod request;
mod schema;
mod search;
mod state;
mod tools;
mod uri;
mod watch;

pub(crate) use decided::Decided;
pub(crate) use locate::{Located, One, Subject};
pub(crate) use search::{CALL, called};
pub(super) use state::State;
pub(super) use tools::Tools;

use super::children::own_program;
use crate::budget::Budget;
use crate::child::guardian::HANDED;
use crate::child::{self, EnvFiles};
use crate::lifecycle::Policy;
use crate::tasks;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The shortest and the longest time before a relay is started again. It costs little.
const SOON: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(2);

/// Yields this process's ends of the sockets of its relays.
pub type Plugged = mpsc::UnboundedReceiver<UnixStream>;

/// Makes the relay the program of these settings. It is started again without end, since nothing but a new one brings
/// `/mcp` back.
pub fn stand_in(child: &mut child::Settings, restarts: &mut Policy) {
    if cfg!(target_os = "linux") {
        *restarts = Policy { limit: Policy::ENDLESS, first: SOON, longest: LATEST, ..*restarts };
    }
    child.program = own_program();
    child.args = vec!["relay".into(), format!("handed:{HANDED}").into()];
    (child.env, child.env_files, child.env_clear) = (Vec::new(), EnvFiles::default(), true);
    child.limits.handed = 1;
}

/// Serves all relays as long as the process runs. Must be called within a tokio runtime.
pub(super) fn serve(state: &Arc<State>, mut plugged: Plugged, budget: Budget) {
    tasks::spawn(watch::run(Arc::clone(state), budget.clone()));
    let state = Arc::clone(state);
    tasks::spawn(async move {
        while let Some(socket) = plugged.recv().await {
            tasks::spawn(connection::serve(Arc::clone(&state), socket, budget.clone()));
        }
    });
}
