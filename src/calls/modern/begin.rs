//! Begins modern requests: chooses the child, checks the request against the child's tools, and sends it.

use super::params::{agrees, unchecked};
use super::task::Task;
use super::{Caller, ModernCall};
use crate::budget::Charged;
use crate::calls::Calls;
use crate::calls::deadline::Deadline;
use crate::calls::not_begun::NotBegun;
use crate::calls::seal::Purpose;
use crate::catalogue::lists;
use crate::children::{Lease, Owner, Shared, ToolSource};
use crate::clock::now;
use crate::era::capabilities::Capabilities;
use crate::era::input::ASKING;
use crate::era::{Era, discover, envelope};
use crate::exchange::{Exchange, Held};
use crate::ingress::{Incoming, Received, Refusal};
use crate::jsonrpc::rewrite::Changes;
use crate::jsonrpc::{Amendment, ClientId, Span, Spliced, codes, kept, rewrite, splice, text};
use crate::mux::WireId;
use crate::trace_context::Trace;
use parking_lot::Mutex;
use std::sync::Arc;

impl Calls {
    /// Begins a modern request, or resumes the parked call that it retries.
    ///
    /// # Errors
    /// When a bound is reached, the child is gone, it does not offer the method, or the state of the retry was not
    /// issued for this request.
    pub async fn begin_modern(
        self: &Arc<Self>,
        caller: Caller,
        incoming: Incoming,
    ) -> Result<Box<ModernCall>, Refusal> {
        let accepted = self.entrance.accept(&incoming).await?;
        let client = caller.client();
        let shared = self.shared_for(Era::Modern, client, &incoming.operation).await?;
        let method = incoming.method().into_owned();
        if method.starts_with("tasks/") && !self.owns_task(&caller, &incoming) {
            return Err(Refusal::Withheld(codes::INVALID_PARAMS, "no such task"));
        }
        let mut call = Box::new(ModernCall::new(self, shared, caller, &incoming, method));
        call.accepted = Some(accepted);
        if let Some((parked, retry)) = self.resumed(&mut call, &incoming).await? {
            return Box::pin(parked.go_on(call.caller.clone(), &incoming, &retry)).await;
        }
        if call.shared.era == Era::Legacy && !offers(&call.shared, &call.method) {
            return Err(Refusal::Withheld(codes::METHOD_NOT_FOUND, "the server does not offer this"));
        }
        // The shared child's list reveals a mismatch before a child is started, and so before a stream has begun.
        if let Err(mismatch @ Refusal::Mismatch(_)) = call.learn_tool(&incoming).await {
            return Err(mismatch);
        }
        call.lease = self.lease_for(&call, &incoming).await?;
        call.task = None;
        call.learn_tool(&incoming).await?;
        if call.lease.is_none() && lists::may_be_kept(&call.method) {
            let (class, principal) = (call.caller.capabilities, &call.caller.principal);
            call.listed = call.shared.asks_for_list(&incoming, class, principal, self.children.settings());
            call.fresh = call.listed.as_ref().and_then(|asked| self.lists.find(asked, now()));
        }
        if call.fresh.is_none() {
            call.send(incoming).await?;
        }
        Ok(call)
    }

    /// Returns whether a request about a task comes from the task's owner.
    fn owns_task(&self, caller: &Caller, incoming: &Incoming) -> bool {
        let id = incoming.message.params.as_ref().and_then(|params| params.task_id.as_ref());
        id.is_none_or(|id| self.task_owners.may_use(&text(&incoming.frame, id), &caller.principal))
    }

    /// Leases a child for a call that needs exclusive use of it: since the child may ask or log, or since it learns at
    /// its start who its caller is.
    async fn lease_for(
        self: &Arc<Self>,
        call: &ModernCall,
        incoming: &Incoming,
    ) -> Result<Option<Lease>, Refusal> {
        let Caller { principal, capabilities, log_level, .. } = &call.caller;
        let owner = Owner::of_request(principal);
        let variables = self.children.variables_for(&incoming.identity);
        let is_told = variables.is_some();
        if call.shared.era == Era::Modern {
            // Log messages name no request: only those of a child without other calls can be attributed.
            let logs = log_level.is_some() && call.is_asking();
            if !logs && !is_told {
                return Ok(None);
            }
            let lease = self.children.lease_modern(owner.as_ref(), call.caller.client(), variables).await;
            return match lease {
                None if is_told => Err(Refusal::Busy("no server could be started for this caller")),
                lease => Ok(lease),
            };
        }
        let may_be_asked =
            self.may_ask(*capabilities) && (call.is_asking() || call.method.ends_with("/list"));
        if !may_be_asked && !is_told {
            return Ok(None);
        }
        let lease = self.children.lease(owner.as_ref(), call.caller.client(), variables).await?;
        if let (Some(lease), Some(level), true) = (&lease, *log_level, call.is_asking())
            && call.shared.declares("logging")
        {
            self.children.set_level(lease, level).await;
        }
        Ok(lease)
    }

    /// Returns whether a legacy child may ask a client with these capabilities any question.
    fn may_ask(&self, capabilities: Capabilities) -> bool {
        capabilities.asks() || (capabilities.roots && self.children.settings().forward_roots)
    }
}

impl ModernCall {
    fn new(
        calls: &Arc<Calls>,
        shared: Arc<Shared>,
        caller: Caller,
        incoming: &Incoming,
        method: String,
    ) -> Self {
        let params = incoming.message.params.as_ref();
        let raw = |span: Option<&Span>| span.map(|span| kept(&incoming.frame, span));
        ModernCall {
            calls: Arc::clone(calls),
            exchange: None,
            lease: None,
            shared,
            caller,
            purpose: None,
            open: Vec::new(),
            ask_at: None,
            token: progress_token(incoming),
            asked: 0,
            urls: 0,
            task: None,
            listed: None,
            fresh: None,
            method,
            uri: raw(params.and_then(|params| params.uri.as_ref())),
            client_id: ClientId::new(incoming.id()),
            deadline: Deadline::new(calls.children.settings(), now()),
            operation: Arc::clone(&incoming.operation),
            parked: None,
            accepted: None,
        }
    }

    /// Returns whether the method's answer may be a question.
    pub(super) fn is_asking(&self) -> bool {
        ASKING.contains(&&*self.method)
    }

    pub(super) fn purpose_of(&self, incoming: &Incoming) -> Purpose {
        Purpose::of(&self.caller.principal, &incoming.frame, &incoming.message)
    }

    /// Checks the call's headers against the tool (streamable-http §Server Validation), and
    /// notes whether a legacy child runs the tool as a task only.
    async fn learn_tool(&mut self, incoming: &Incoming) -> Result<(), Refusal> {
        let params = incoming.message.params.as_ref();
        let name = params.and_then(|params| params.name.clone()).filter(|_| self.method == "tools/call");
        let Some(name) = name else { return Ok(()) };
        if !self.shared.declares("tools") {
            return Ok(());
        }
        let Some(tools) = self.tool_source().tools().await else {
            return unchecked(&self.caller);
        };
        let name = text(&incoming.frame, &name);
        agrees(&self.caller, &tools, &name, incoming)?;
        let legacy = self.shared.era == Era::Legacy;
        if legacy && tools.tasks.contains(&*name) && discover::runs_tasks(&self.shared.words) {
            self.task = Some(Task::of(incoming));
        }
        Ok(())
    }

    pub(super) fn tool_source(&self) -> ToolSource {
        match &self.lease {
            Some(lease) => ToolSource::Leased(lease.child().clone()),
            None => ToolSource::Shared(Arc::clone(&self.shared)),
        }
    }

    /// Sends the request to its child. If that child ends before it received anything, uses the next one.
    async fn send(&mut self, incoming: Incoming) -> Result<(), Refusal> {
        if self.lease.is_some() || self.caller.capabilities.url {
            self.purpose = Some(self.purpose_of(&incoming));
        }
        let mut gone = None;
        loop {
            match self.send_once(&incoming).await {
                Ok(exchange) => {
                    self.exchange = Some(exchange);
                    return Ok(());
                }
                Err(NotBegun::Gone(failure))
                    if self.lease.is_none() && self.calls.may_look_again(&failure, &mut gone) =>
                {
                    let client = self.caller.client();
                    let next = self.calls.shared_for(Era::Modern, client, &self.operation).await?;
                    if next.era != self.shared.era {
                        return Err(Refusal::Failed(failure));
                    }
                    self.shared = next;
                }
                Err(not_begun) => return Err(not_begun.into()),
            }
        }
    }

    async fn send_once(&mut self, incoming: &Incoming) -> Result<Exchange, NotBegun> {
        let client = self.caller.client();
        let link = self.lease.as_ref().map_or(&self.shared.link, Lease::link);
        let entered = self.calls.entrance.enter(&self.operation, client, link).await;
        let places = entered.map_err(NotBegun::Refused)?;
        self.deadline = Deadline::new(self.calls.children.settings(), now());
        let may_ask = self.calls.may_ask(self.caller.capabilities);
        let mut held = Held {
            mailbox: incoming.mailbox(),
            token: self.token.clone(),
            // Questions of a shared child are not answered; but if the call is its only one, the client can be told
            // which capability it lacks.
            takes_questions: self.lease.is_none() && self.is_asking() && !may_ask,
            client: Some(self.caller.client()),
            places: Mutex::default(),
            listen: None,
        };
        match &mut self.task {
            // The task continues after the child's first answer.
            Some(task) => task.places = Some(places),
            None => held.places = Some(places).into(),
        }
        if let Some(lease) = &self.lease {
            lease.hear(self.task.as_ref().map_or(&held.mailbox, Task::desk));
        }
        let running = self.lease.as_ref().map_or(&self.shared.members.running, Lease::running);
        let (era, task) = (self.shared.era, self.task.as_ref());
        let asked = incoming.ask(link);
        let trace = incoming.trace_for(asked.as_ref());
        let begun = link.begin(held, asked, |wire_id| {
            if let Some(task) = task {
                running.note(link.number(), wire_id, task.desk());
            }
            for_child(incoming, &trace, era, task.is_some(), wire_id)
        });
        begun.map_err(NotBegun::from)
    }
}

pub(super) fn progress_token(incoming: &Incoming) -> Option<Charged> {
    let params = incoming.message.params.as_ref()?;
    let token = params.meta.as_ref()?.progress_token.clone()?;
    Some(kept(&incoming.frame, &token))
}

/// Writes the request for its child: for a legacy child without the envelope, which some reject, and as a task if
/// `task` is set.
fn for_child(incoming: &Incoming, trace: &Trace, era: Era, task: bool, wire_id: WireId) -> Spliced {
    let Received { frame, message, .. } = &**incoming;
    let id = Some(wire_id.as_u64());
    if era == Era::Modern {
        return rewrite::request_for_child(frame, message, id, id, trace);
    }
    let params = Amendment { drop: &[], add: if task { b"\"task\":{}" } else { b"" } };
    let changes = Changes { wire_id: id, progress_token: id, params, ..Changes::new(trace) };
    let edits = envelope::take_off(frame, message, &changes);
    splice(frame, &message.object, edits)
}

/// Returns whether a server declares a method. Some servers answer methods that they do not declare, others report
/// wrong parameters.
fn offers(shared: &Shared, method: &str) -> bool {
    let capability = match method.split('/').next() {
        Some("tools") => "tools",
        Some("prompts") => "prompts",
        Some("resources") => "resources",
        Some("completion") => "completions",
        // An extension of the modern era, which no legacy child has.
        Some("tasks") => return false,
        _ => return true,
    };
    shared.declares(capability)
}
