//! Translates a child's self-description: `InitializeResult` for clients with a session, `DiscoverResult` for clients
//! without one. Both documents are small and rare, so they are composed from the child's raw parts.

use super::{MODERN_VERSION, keys, raw, results::Hint};
use crate::budget::Charged;
use crate::jsonrpc::{Amendment, Edits, Span, amend, items, member, members, splice, string_member, text};
use crate::session::{LEGACY_VERSIONS, Version};
use serde_json::{Value, json};

/// Translates a legacy child's `InitializeResult` into a `DiscoverResult`. The tasks of both eras are removed from
/// its capabilities; everything else is kept, including `experimental` and foreign extensions.
pub fn from_initialize(initialized: &Charged, hint: Hint) -> Charged {
    let whole = 0..initialized.len();
    let capabilities = capabilities(initialized, &whole);
    let mut text = format!(
        "{{\"resultType\":\"complete\",\"supportedVersions\":[\"{MODERN_VERSION}\"],\"capabilities\":"
    );
    text += &capabilities;
    if let Some(instructions) = string(initialized, &whole, "instructions") {
        text += &format!(",\"instructions\":{}", raw(initialized, &instructions));
    }
    text += &format!(",{}", hint.members());
    let mut meta = kept_meta(initialized, &whole);
    if let Some(info) = server_info(initialized) {
        meta.insert(0, format!("\"{}\":{}", keys::SERVER_INFO, raw(initialized, &info)));
    }
    text += &meta_member(&meta);
    text.push('}');
    initialized.derive(text.into_bytes())
}

/// Returns a modern child's `DiscoverResult` for modern clients: unchanged but for `supportedVersions`, which lists
/// the revisions served here (server/discover). Some children also list legacy ones, which a modern client cannot
/// use.
pub fn served(discovered: &Charged) -> Charged {
    let whole = 0..discovered.len();
    let add = format!("\"supportedVersions\":[\"{MODERN_VERSION}\"]");
    let mut edits = Edits::new();
    amend(discovered, &whole, Amendment { drop: &["supportedVersions"], add: add.as_bytes() }, &mut edits);
    discovered.derive(splice(discovered, &whole, edits).to_vec())
}

/// Translates a modern child's `DiscoverResult` into an `InitializeResult` for a client of `version`. Since that
/// requires `serverInfo`, missing values get defaults that are never empty.
pub fn to_initialize(discovered: &Charged, version: &Version) -> Charged {
    let whole = 0..discovered.len();
    let mut text = format!(
        "{{\"protocolVersion\":{},\"capabilities\":{},\"serverInfo\":{}",
        Value::from(version.as_str()),
        capabilities(discovered, &whole),
        implementation(discovered, version),
    );
    if let Some(instructions) = string(discovered, &whole, "instructions") {
        text += &format!(",\"instructions\":{}", raw(discovered, &instructions));
    }
    text += &meta_member(&kept_meta(discovered, &whole));
    text.push('}');
    discovered.derive(text.into_bytes())
}

/// Returns the revision in the answer to a legacy client: its own if proxyrunner supports it, else the newest
/// (basic/lifecycle §Version Negotiation).
pub fn negotiated(asked: Option<&Version>) -> Version {
    asked.filter(|asked| asked.is_known()).cloned().unwrap_or_else(|| Version::new(LEGACY_VERSIONS[0]))
}

/// Returns the `serverInfo` of an `InitializeResult`, which is added to every result for a modern client.
pub fn server_info(initialized: &[u8]) -> Option<Span> {
    member(initialized, &(0..initialized.len()), "serverInfo").filter(|info| initialized[info.start] == b'{')
}

/// Returns the `serverInfo` of an `InitializeResult` or a `DiscoverResult`.
pub fn info_of(words: &[u8]) -> Option<Span> {
    let meta = || member(words, &(0..words.len()), "_meta").filter(|meta| words[meta.start] == b'{');
    let info = || member(words, &meta()?, keys::SERVER_INFO).filter(|info| words[info.start] == b'{');
    server_info(words).or_else(info)
}

/// Returns a predicate: whether a `DiscoverResult` declares a capability's flag, as `("tools", "listChanged")`.
pub fn capabilities_of(discovered: &[u8]) -> impl Fn(&str, &str) -> bool {
    move |capability, flag| {
        let capabilities = member(discovered, &(0..discovered.len()), "capabilities");
        let capability = capabilities.and_then(|all| member(discovered, &all, capability));
        let flag = capability.and_then(|capability| member(discovered, &capability, flag));
        flag.is_some_and(|flag| &discovered[flag] == b"true")
    }
}

/// Returns whether two children describe themselves alike, apart from order and whitespace. Compares
/// `InitializeResult`s or `DiscoverResult`s, without their caching hints.
pub fn same_words(one: &[u8], other: &[u8]) -> bool {
    let read = |words: &[u8]| {
        let mut words: serde_json::Value = serde_json::from_slice(words).ok()?;
        let object = words.as_object_mut()?;
        let info = object.remove("_meta").and_then(|meta| meta.get(keys::SERVER_INFO).cloned());
        for transient in ["ttlMs", "cacheScope"] {
            object.remove(transient);
        }
        Some((words, info))
    };
    read(one).is_some_and(|words| read(other) == Some(words))
}

/// Returns whether a legacy child supports tool calls as tasks. If it does not declare so, tools must not be called
/// as tasks, whatever their own `taskSupport` (2025-11-25, basic/utilities/tasks §Tool-Level Negotiation).
pub fn runs_tasks(initialized: &[u8]) -> bool {
    let path = ["capabilities", "tasks", "requests", "tools", "call"];
    let whole = 0..initialized.len();
    let call = path.iter().try_fold(whole, |object, name| member(initialized, &object, name));
    call.is_some_and(|call| initialized[call.start] == b'{')
}

/// Returns the names of the capabilities that a `DiscoverResult` declares.
pub fn capability_names(discovered: &[u8]) -> Vec<String> {
    let capabilities = member(discovered, &(0..discovered.len()), "capabilities");
    let names = capabilities.into_iter().flat_map(|all| members(discovered, all));
    names.map(|(key, _)| text(discovered, &key).into_owned()).collect()
}

/// Returns the revisions in a `DiscoverResult`, or in the `data` of -32022; `None` if `name` is not an array of
/// strings. Some children also list legacy ones.
pub fn versions(bytes: &[u8], object: &Span, name: &str) -> Option<Vec<String>> {
    let list = member(bytes, object, name).filter(|list| bytes[list.start] == b'[')?;
    let strings =
        items(bytes, list).map(|item| (bytes[item.start] == b'"').then(|| text(bytes, &item).into_owned()));
    strings.collect()
}

/// Returns the child's capabilities without the tasks of the legacy core and the modern extension.
fn capabilities(bytes: &Charged, result: &Span) -> String {
    let Some(span) = member(bytes, result, "capabilities").filter(|span| bytes[span.start] == b'{') else {
        return "{}".to_owned();
    };
    let mut edits = Edits::new();
    if let Some(extensions) = member(bytes, &span, "extensions").filter(|span| bytes[span.start] == b'{') {
        amend(bytes, &extensions, Amendment { drop: &[keys::TASKS], add: b"" }, &mut edits);
    }
    amend(bytes, &span, Amendment { drop: &["tasks"], add: b"" }, &mut edits);
    let kept = splice(bytes, &span, edits).to_vec();
    String::from_utf8_lossy(&kept).into_owned()
}

fn string(bytes: &[u8], object: &Span, name: &str) -> Option<Span> {
    member(bytes, object, name).filter(|value| bytes[value.start] == b'"')
}

/// Returns the raw members of a result's `_meta`, without `serverInfo`.
fn kept_meta(bytes: &[u8], result: &Span) -> Vec<String> {
    let Some(meta) = member(bytes, result, "_meta") else { return Vec::new() };
    members(bytes, meta)
        .filter(|(key, _)| text(bytes, key) != keys::SERVER_INFO)
        .map(|(key, value)| format!("{}:{}", raw(bytes, &key), raw(bytes, &value)))
        .collect()
}

fn meta_member(members: &[String]) -> String {
    if members.is_empty() { String::new() } else { format!(",\"_meta\":{{{}}}", members.join(",")) }
}

/// Returns the `Implementation` of a modern child, with the members that `version` defines.
fn implementation(discovered: &[u8], version: &Version) -> String {
    let meta = member(discovered, &(0..discovered.len()), "_meta");
    let info = meta.and_then(|meta| member(discovered, &meta, keys::SERVER_INFO));
    let Some(info) = info.filter(|info| discovered[info.start] == b'{') else {
        return json!({"name": "unnamed", "version": "unknown"}).to_string();
    };
    let said = |name, otherwise: &'static str| match string_member(discovered, &info, name) {
        Some(said) if !said.is_empty() => Value::from(said.into_owned()),
        _ => Value::from(otherwise),
    };
    let mut kept =
        format!("{{\"name\":{},\"version\":{}", said("name", "unnamed"), said("version", "unknown"));
    for (key, value) in members(discovered, info.clone()) {
        let known = match text(discovered, &key).as_ref() {
            "name" | "version" => false,
            "title" => version.as_str() >= "2025-06-18",
            "icons" | "description" | "websiteUrl" => version.as_str() >= "2025-11-25",
            _ => true,
        };
        if known {
            kept += &format!(",{}:{}", raw(discovered, &key), raw(discovered, &value));
        }
    }
    kept.push('}');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::era::fixtures::json as parsed;
    use crate::era::results::Scope;

    const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"prompts":{"listChanged":true},"tasks":{"list":{}},"experimental":{"x":{"y":12345678901234567890}},"extensions":{"io.modelcontextprotocol/ui":{}}},
        "serverInfo":{"name":"ExampleServer","title":"Example","version":"1.0.0"},"instructions":"Be \u0062rief","_meta":{"k":1}}"#;

    #[test]
    fn an_initialize_result_becomes_a_discover_result() {
        let discovered = from_initialize(
            &Charged::from(INITIALIZED.replace('\n', " ")),
            Hint { ttl_ms: 60_000, scope: Scope::Public },
        );
        assert_eq!(
            discovered,
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"logging":{},"prompts":{"listChanged":true},"experimental":{"x":{"y":12345678901234567890}},"extensions":{"io.modelcontextprotocol/ui":{}}},"instructions":"Be \u0062rief","ttlMs":60000,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"ExampleServer","title":"Example","version":"1.0.0"},"k":1}}"#
        );
        let least = parsed(from_initialize(&Charged::fixed(b"{}"), Hint::default()));
        assert_eq!(
            least,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0, "cacheScope": "private"})
        );
    }

    #[test]
    fn a_discover_result_becomes_an_initialize_result() {
        let discovered = &Charged::fixed(br#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}},"instructions":"i","ttlMs":1,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"S","version":"2","title":"T","icons":[],"websiteUrl":"u"},"k":{"l":1}}}"#);
        let info = |version| {
            let result = parsed(to_initialize(discovered, &Version::new(version)));
            assert_eq!(result["protocolVersion"], version);
            assert_eq!(
                result["capabilities"],
                json!({"tools": {"listChanged": true}, "extensions": {"a/b": {}}})
            );
            assert_eq!(result["instructions"], "i");
            assert_eq!(result["_meta"], json!({"k": {"l": 1}}));
            assert_eq!(result.as_object().unwrap().len(), 5);
            result["serverInfo"].clone()
        };
        assert_eq!(info("2025-03-26"), json!({"name": "S", "version": "2"}));
        assert_eq!(info("2025-06-18"), json!({"name": "S", "version": "2", "title": "T"}));
        assert_eq!(
            info("2025-11-25"),
            json!({"name": "S", "version": "2", "title": "T", "icons": [], "websiteUrl": "u"})
        );
    }

    #[test]
    fn a_nameless_server_gets_a_name_and_a_version() {
        let key = keys::SERVER_INFO;
        for (meta, name) in [
            (json!({}), "unnamed"),
            (json!({"_meta": {key: 7}}), "unnamed"),
            (json!({"_meta": {key: {"name": "S", "version": ""}}}), "S"),
            (json!({"_meta": {key: {"name": 7}}}), "unnamed"),
        ] {
            let result = parsed(to_initialize(&Charged::from(meta.to_string()), &Version::new("2025-11-25")));
            assert_eq!(result["serverInfo"], json!({"name": name, "version": "unknown"}), "{meta}");
            assert_eq!(result["capabilities"], json!({}));
            assert!(result.get("_meta").is_none());
        }
    }

    #[test]
    fn modern_clients_get_the_supported_revisions() {
        let said =
            b"{\"supportedVersions\":[\"2026-07-28\",\"2025-11-25\"], \"capabilities\":{\"tools\":{}}}";
        assert_eq!(
            served(&Charged::fixed(said)),
            r#"{"supportedVersions":["2026-07-28"], "capabilities":{"tools":{}}}"#
        );
        assert_eq!(served(&Charged::fixed(b"{}")), r#"{"supportedVersions":["2026-07-28"]}"#);
    }

    #[test]
    fn declared_capabilities_are_read() {
        let discovered =
            br#"{"capabilities":{"tools":{"listChanged":true},"prompts":{"listChanged":false},"x":7}}"#;
        let declares = capabilities_of(discovered);
        assert!(declares("tools", "listChanged"));
        for (capability, flag) in
            [("prompts", "listChanged"), ("tools", "subscribe"), ("resources", "listChanged"), ("x", "y")]
        {
            assert!(!declares(capability, flag), "{capability}.{flag}");
        }
        assert_eq!(capability_names(discovered), ["tools", "prompts", "x"]);
        assert!(capability_names(b"{}").is_empty());
    }

    #[test]
    fn tasks_are_supported_only_if_declared_for_tools() {
        let runs = |tasks: &str| runs_tasks(format!(r#"{{"capabilities":{{"tasks":{tasks}}}}}"#).as_bytes());
        assert!(runs(r#"{"requests":{"tools":{"call":{}}}}"#));
        for none in ["{}", r#"{"requests":{"tools":{}}}"#, r#"{"requests":{"tools":{"call":null}}}"#, "null"]
        {
            assert!(!runs(none), "{none}");
        }
        assert!(!runs_tasks(b"{}"));
    }

    #[test]
    fn self_descriptions_are_equal_in_any_order_and_with_any_lifetime() {
        let one = json!({"capabilities": {"tools": {}}, "serverInfo": {"name": "S"}, "ttlMs": 5}).to_string();
        let same = |other: Value| same_words(one.as_bytes(), other.to_string().as_bytes());
        assert!(same(
            json!({"serverInfo": {"name": "S"}, "capabilities": {"tools": {}}, "cacheScope": "public"})
        ));
        assert!(same(json!({"capabilities": {"tools": {}}, "serverInfo": {"name": "S"}, "_meta": {"k": 1}})));
        assert!(!same(json!({"capabilities": {"tools": {}}, "serverInfo": {"name": "T"}})));
        assert!(!same(json!({"capabilities": {}, "serverInfo": {"name": "S"}})));
        let info = json!({keys::SERVER_INFO: {"name": "S"}});
        let modern = json!({"capabilities": {}, "_meta": info}).to_string();
        assert!(same_words(modern.as_bytes(), modern.as_bytes()));
        assert!(!same_words(modern.as_bytes(), br#"{"capabilities":{}}"#), "it does not identify itself");
        for none in ["", "7", "{"] {
            assert!(!same_words(none.as_bytes(), none.as_bytes()), "{none:?} says nothing");
        }
    }

    #[test]
    fn versions_are_negotiated_and_read() {
        let asked = |version| negotiated(Some(&Version::new(version)));
        assert_eq!(asked("2025-03-26").as_str(), "2025-03-26");
        assert_eq!(asked("2026-07-28").as_str(), "2025-11-25");
        assert_eq!(negotiated(None).as_str(), "2025-11-25");
        let of = |text: &str| versions(text.as_bytes(), &(0..text.len()), "supported");
        assert_eq!(of(r#"{"supported":["2026-07-28","a"]}"#).unwrap(), ["2026-07-28", "a"]);
        for none in ["{}", "[]", r#"{"supported":"2026-07-28"}"#, r#"{"supported":[7]}"#] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
