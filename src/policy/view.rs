//! The caller's view of an answer: lists without what the caller may not use. Every other byte stays.

use super::owners::Task;
use super::{Feature, Hints, Policies, hints_of};
use crate::budget::Charged;
use crate::identity::Identity;
use crate::jsonrpc::{
    self, Edits, Message, Span, Spliced, codes, items, member, members, reads_as, retain_items, rewrite,
    splice, string_member, text, unescaped,
};
use memchr::memmem;
use std::borrow::Cow;
use std::sync::Arc;

/// How the caller sees the answer to a request.
#[derive(Debug)]
pub(crate) struct View {
    policies: Arc<Policies>,
    identity: Arc<Identity>,
    /// The server that answers, at a gateway.
    server: Option<Arc<str>>,
    /// The request's id as the client wrote it, for an answer that cannot be filtered.
    id: Vec<u8>,
    change: Change,
}

/// What is done with the answer.
#[derive(Debug)]
enum Change {
    /// Its things are filtered.
    List(Feature),
    /// Its tasks are filtered.
    Tasks,
    /// If it is a task, its owner and its tool are remembered.
    Call(String, Hints),
    /// Others must not get it from a cache.
    Private,
    /// Its request is not known: whatever lists it has are filtered.
    #[cfg(feature = "gateway")]
    Any,
}

/// An answer that cannot be filtered.
struct Unfilterable;

impl View {
    /// Returns the view of a list of things.
    pub(crate) fn of_list(
        policies: &Arc<Policies>,
        identity: &Arc<Identity>,
        id: &[u8],
        feature: Feature,
    ) -> Self {
        View::new(policies, identity, id, Change::List(feature))
    }

    /// Returns the view of a list of tasks.
    pub(crate) fn of_tasks(policies: &Arc<Policies>, identity: &Arc<Identity>, id: &[u8]) -> Self {
        View::new(policies, identity, id, Change::Tasks)
    }

    /// Returns the view of a tool's result.
    pub(crate) fn of_call(
        policies: &Arc<Policies>,
        identity: &Arc<Identity>,
        id: &[u8],
        tool: String,
        hints: Hints,
    ) -> Self {
        View::new(policies, identity, id, Change::Call(tool, hints))
    }

    /// Returns the view of a result that only its caller may see.
    pub(crate) fn of_private(policies: &Arc<Policies>, identity: &Arc<Identity>, id: &[u8]) -> Self {
        View::new(policies, identity, id, Change::Private)
    }

    /// Returns the view of answers to requests that are not known.
    #[cfg(feature = "gateway")]
    pub(crate) fn of_any(policies: &Arc<Policies>, identity: &Arc<Identity>) -> Self {
        View::new(policies, identity, b"", Change::Any)
    }

    /// Adds the server of a gateway that answers.
    #[cfg(feature = "gateway")]
    pub(crate) fn at(self, server: &Arc<str>) -> Self {
        View { server: Some(Arc::clone(server)), ..self }
    }

    fn new(policies: &Arc<Policies>, identity: &Arc<Identity>, id: &[u8], change: Change) -> Self {
        let (policies, identity) = (Arc::clone(policies), Arc::clone(identity));
        View { policies, identity, server: None, id: id.to_vec(), change }
    }

    /// Returns the answer as the caller may see it.
    pub(crate) async fn apply(&self, answer: Spliced) -> Spliced {
        self.apply_as(&self.id, answer).await
    }

    /// Returns the answer to the request with this raw id as the caller may see it.
    pub(crate) async fn apply_as(&self, id: &[u8], answer: Spliced) -> Spliced {
        let concerns = match &self.change {
            Change::List(_) | Change::Tasks => true,
            // Few calls become tasks, and few servers limit caching.
            Change::Call(..) => mentions(&answer, b"taskId"),
            Change::Private => mentions(&answer, b"cacheScope"),
            #[cfg(feature = "gateway")]
            Change::Any => true,
        };
        if !concerns {
            return answer;
        }
        match self.applied(answer).await {
            Ok(answer) => answer,
            Err(Unfilterable) => {
                let why = "the server's answer cannot be filtered by the policies";
                Spliced::from(rewrite::error(Some(id), codes::INTERNAL_ERROR, why, None))
            }
        }
    }

    async fn applied(&self, answer: Spliced) -> Result<Spliced, Unfilterable> {
        let frame = answer.flatten().map_err(|_| Unfilterable)?;
        let message = jsonrpc::scan(&frame).map_err(|_| Unfilterable)?;
        let Some(result) = message.result.clone() else { return Ok(Spliced::from(frame)) };
        let mut edits = Edits::new();
        match &self.change {
            Change::List(feature) => self.filter(*feature, &frame, &result, &mut edits).await?,
            Change::Tasks => self.filter_tasks(&frame, &result, &mut edits)?,
            Change::Call(tool, hints) => {
                self.note_task(tool, *hints, &frame, &result);
                return Ok(Spliced::from(frame));
            }
            Change::Private => {}
            #[cfg(feature = "gateway")]
            Change::Any => {
                for feature in [Feature::Tool, Feature::Prompt, Feature::Resource] {
                    self.filter(feature, &frame, &result, &mut edits).await?;
                }
                self.filter_tasks(&frame, &result, &mut edits)?;
            }
        }
        make_private(&frame, &result, &mut edits);
        Ok(edited(&frame, &message, edits))
    }

    async fn filter(
        &self,
        feature: Feature,
        frame: &Charged,
        result: &Span,
        edits: &mut Edits,
    ) -> Result<(), Unfilterable> {
        let (lists, key): (&[&str], _) = match feature {
            Feature::Tool => (&["tools"], "name"),
            Feature::Prompt => (&["prompts"], "name"),
            Feature::Resource => (&["resources", "resourceTemplates"], "uri"),
        };
        for list in listed(frame, result, lists)? {
            let mut kept = Vec::new();
            let mut things = Vec::new();
            for item in items(frame, list.clone()) {
                let name = named(frame, &item, key)
                    .or_else(|| named(frame, &item, "uriTemplate").filter(|_| key == "uri"));
                kept.push(name.is_some());
                if let Some(name) = name {
                    let hints =
                        if feature == Feature::Tool { hints_of(frame, &item) } else { Hints::default() };
                    things.push((name.into_owned(), hints));
                }
            }
            let mut allowed = self.decide_all(feature, things).await.into_iter();
            for keep in kept.iter_mut().filter(|keep| **keep) {
                *keep = allowed.next().unwrap_or(false);
            }
            retain_items(frame, &list, edits, |at| kept.get(at).copied().unwrap_or(false));
        }
        Ok(())
    }

    async fn decide_all(&self, feature: Feature, things: Vec<(String, Hints)>) -> Vec<bool> {
        self.policies.decide_all(&self.identity, self.server.as_ref(), feature, things).await
    }

    fn filter_tasks(&self, frame: &Charged, result: &Span, edits: &mut Edits) -> Result<(), Unfilterable> {
        for list in listed(frame, result, &["tasks"])? {
            let is_own = |item: Span| {
                let id = string_member(frame, &item, "taskId");
                id.is_some_and(|id| {
                    self.policies.tasks.of(&id, self.server.as_deref(), &self.identity.principal).is_some()
                })
            };
            let kept: Vec<_> = items(frame, list.clone()).map(is_own).collect();
            retain_items(frame, &list, edits, |at| kept.get(at).copied().unwrap_or(false));
        }
        Ok(())
    }

    /// Remembers the task that a call became, in the form of either era.
    fn note_task(&self, tool: &str, hints: Hints, frame: &Charged, result: &Span) {
        let task = member(frame, result, "task");
        let id = string_member(frame, task.as_ref().unwrap_or(result), "taskId");
        if let Some(id) = id {
            let task = Task { tool: tool.to_owned(), hints };
            self.policies.tasks.put(&self.identity.principal, self.server.as_deref(), id.into_owned(), task);
        }
    }
}

fn mentions(answer: &Spliced, word: &[u8]) -> bool {
    answer.segments().iter().any(|segment| memmem::find(segment, word).is_some())
}

/// Returns the lists of these names in a result. All members of a name count, since a client may take any of them.
///
/// # Errors
/// When a client could take something for a list that is none, or that has another name.
fn listed(frame: &[u8], result: &Span, names: &[&str]) -> Result<Vec<Span>, Unfilterable> {
    if frame[result.start] != b'{' {
        return Err(Unfilterable);
    }
    let mut lists = Vec::new();
    for (key, value) in members(frame, result.clone()) {
        let key = unescaped(&frame[key]);
        let Some(name) = names.iter().find(|name| reads_as(&key, name)) else { continue };
        if *key != *name.as_bytes() || frame[value.start] != b'[' {
            return Err(Unfilterable);
        }
        lists.push(value);
    }
    Ok(lists)
}

/// Returns the name of an item; `None` if clients could read two.
fn named<'f>(frame: &'f [u8], item: &Span, key: &str) -> Option<Cow<'f, str>> {
    if frame[item.start] != b'{' {
        return None;
    }
    let count =
        members(frame, item.clone()).filter(|(found, _)| reads_as(&unescaped(&frame[found.clone()]), key));
    string_member(frame, item, key).filter(|_| count.count() == 1)
}

/// Forbids caches to give a result to others.
pub(crate) fn make_private(frame: &[u8], result: &Span, edits: &mut Edits) {
    for (key, value) in members(frame, result.clone()) {
        if text(frame, &key) == "cacheScope" && text(frame, &value) != "private" {
            edits.replace(&value, b"\"private\"");
        }
    }
}

fn edited(frame: &Charged, message: &Message, edits: Edits) -> Spliced {
    if edits.is_empty() { Spliced::from(frame.clone()) } else { splice(frame, &message.object, edits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(result: &str) -> Option<usize> {
        listed(result.as_bytes(), &(0..result.len()), &["tools"]).ok().map(|lists| lists.len())
    }

    #[test]
    fn what_a_client_could_take_for_a_list_is_filtered_or_refused() {
        for (result, expected) in [
            (r#"{"tools":[]}"#, Some(1)),
            (r#"{"tools":[],"t\u006fols":[]}"#, Some(2)),
            (r#"{"nextCursor":"x"}"#, Some(0)),
            (r#"{"tools":{"a":{}}}"#, None),
            (r#"{"tools":null}"#, None),
            (r#"{"tools":[],"Tools":[{"name":"a"}]}"#, None),
            (r#"{"TOOLS":[{"name":"a"}]}"#, None),
            (r#"[{"name":"a"}]"#, None),
            (r#""a""#, None),
        ] {
            assert_eq!(lists(result), expected, "{result}");
        }
    }

    #[test]
    fn an_item_has_one_name() {
        for (item, expected) in [
            (r#"{"n\u0061me":"\u0061"}"#, Some("a")),
            (r#"{"name":"a","name":"b"}"#, None),
            (r#"{"name":"a","Name":"b"}"#, None),
            (r#"{"Name":"a"}"#, None),
            (r#"{"name":1}"#, None),
            (r#"["name"]"#, None),
        ] {
            assert_eq!(named(item.as_bytes(), &(0..item.len()), "name").as_deref(), expected, "{item}");
        }
    }
}
