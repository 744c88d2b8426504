//! Removes or rephrases the parts of results that a client's older revision does not define.
//!
//! All legacy revisions require objects where the modern one accepts any JSON. Revisions before 2025-06-18 have no
//! links, titles, icons and structured results; 2024-11-05 has no audio.

use super::raw;
use crate::jsonrpc::{
    Amendment, Edits, Span, amend, distinct_members, items, member, members, retain, string_member, text,
};
use crate::session::Version;
use serde_json::Value;

/// Returns whether a revision has no links, titles, icons and structured results.
pub fn is_old(version: &Version) -> bool {
    version.as_str() < "2025-06-18"
}

/// Returns whether a revision accepts a result's `structuredContent`. Legacy revisions require an object.
pub fn keeps_structured(frame: &[u8], value: &Span, method: &str, version: &Version) -> bool {
    method != "tools/call" || !(is_old(version) || frame[value.start] != b'{')
}

/// Removes the parts of a legacy child's result that an older revision does not define.
pub fn result(frame: &[u8], result: &Span, method: &str, version: &Version, edits: &mut Edits) {
    retain(frame, result, edits, |name, value| {
        name != b"structuredContent" || keeps_structured(frame, value, method, version)
    });
    within(frame, result, method, version, edits);
}

/// Adds the edits within a result's members.
pub fn within(frame: &[u8], result: &Span, method: &str, version: &Version, edits: &mut Edits) {
    let old = is_old(version);
    let listed = |name| member(frame, result, name).into_iter().flat_map(|list| items(frame, list));
    match method {
        "tools/list" => listed("tools").for_each(|tool| downgrade_tool(frame, &tool, version, edits)),
        "prompts/list" if old => listed("prompts").for_each(|prompt| downgrade_prompt(frame, &prompt, edits)),
        "resources/list" if old => listed("resources").for_each(|item| untitled(frame, &item, edits)),
        "resources/templates/list" if old => {
            listed("resourceTemplates").for_each(|item| untitled(frame, &item, edits));
        }
        "tools/call" if old => {
            let blocks = listed("content").enumerate();
            blocks.for_each(|(index, block)| downgrade_block(frame, &block, index, version, edits));
        }
        "prompts/get" if old => {
            for (index, message) in listed("messages").enumerate() {
                if let Some(block) = member(frame, &message, "content") {
                    downgrade_block(frame, &block, index, version, edits);
                }
            }
        }
        _ => {}
    }
}

fn downgrade_tool(frame: &[u8], tool: &Span, version: &Version, edits: &mut Edits) {
    if frame[tool.start] != b'{' {
        return;
    }
    let mut drop = Vec::new();
    if version.as_str() < "2025-06-18" {
        drop.extend(["title", "icons", "outputSchema"]);
    } else if let Some(schema) = member(frame, tool, "outputSchema")
        && string_member(frame, &schema, "type").as_deref() != Some("object")
    {
        drop.push("outputSchema");
    }
    if version.as_str() < "2025-03-26" {
        drop.push("annotations");
    }
    without(frame, tool, &drop, edits);
    for name in ["inputSchema", "outputSchema"].iter().filter(|name| !drop.contains(*name)) {
        if let Some(schema) = member(frame, tool, name) {
            objects_only(frame, &schema, edits);
        }
    }
}

/// Writes the schemas `true` and `false` of properties as objects of the same meaning. Legacy revisions require objects,
/// and clients refuse the whole list for anything else.
fn objects_only(frame: &[u8], schema: &Span, edits: &mut Edits) {
    let Some(properties) = member(frame, schema, "properties") else { return };
    for (_, value) in members(frame, properties) {
        match &frame[value.clone()] {
            b"true" => edits.replace(&value, b"{}"),
            b"false" => edits.replace(&value, br#"{"not":{}}"#),
            _ => {}
        }
    }
}

fn downgrade_prompt(frame: &[u8], prompt: &Span, edits: &mut Edits) {
    if let Some(arguments) = member(frame, prompt, "arguments") {
        items(frame, arguments).for_each(|argument| without(frame, &argument, &["title"], edits));
    }
    untitled(frame, prompt, edits);
}

fn untitled(frame: &[u8], object: &Span, edits: &mut Edits) {
    without(frame, object, &["title", "icons"], edits);
}

fn without(frame: &[u8], object: &Span, drop: &[&str], edits: &mut Edits) {
    if frame[object.start] == b'{' && !drop.is_empty() {
        amend(frame, object, Amendment { drop, add: b"" }, edits);
    }
}

/// Maximum length of a text that is rephrased, in bytes.
const LONGEST: usize = 1024 * 1024;

/// Downgrades a content block for a revision before 2025-06-18. `index` distinguishes the blocks of one result.
fn downgrade_block(frame: &[u8], block: &Span, index: usize, version: &Version, edits: &mut Edits) {
    match string_member(frame, block, "type").as_deref() {
        // A very long block stays unchanged, since its text would be copied several times.
        Some("resource_link") if block.len() <= LONGEST => link_as_text(frame, block, edits),
        Some("audio") if version.as_str() < "2025-03-26" => audio_as_resource(frame, block, index, edits),
        _ => {}
    }
}

/// Rephrases a link as text: its title, URI and description.
fn link_as_text(frame: &[u8], link: &Span, edits: &mut Edits) {
    let said = |name| string_member(frame, link, name).filter(|text| !text.is_empty());
    let mut words = said("title").or_else(|| said("name")).unwrap_or_default().into_owned();
    if let Some(uri) = said("uri") {
        words += if words.is_empty() { "" } else { ": " };
        words += &uri;
    }
    if let Some(description) = said("description") {
        words += &format!("\n{description}");
    }
    let kept = kept_members(frame, link, &["annotations", "_meta"]);
    edits.replace(link, format!("{{\"type\":\"text\",\"text\":{}{kept}}}", Value::from(words)).as_bytes());
}

/// Turns audio into the blob of an embedded resource, without copying its bytes. A resource must have a URI, but this
/// one cannot be read.
fn audio_as_resource(frame: &[u8], audio: &Span, index: usize, edits: &mut Edits) {
    let data = member(frame, audio, "data").filter(|data| audio.len() - data.len() <= LONGEST);
    let Some(data) = data else { return };
    let kind = member(frame, audio, "mimeType")
        .map_or_else(String::new, |kind| format!(",\"mimeType\":{}", raw(frame, &kind)));
    let kept = kept_members(frame, audio, &["annotations", "_meta"]);
    let before = format!("{{\"type\":\"resource\",\"resource\":{{\"uri\":\"audio:{index}\"{kind},\"blob\":");
    edits.replace(&(audio.start..data.start), before.as_bytes());
    edits.replace(&(data.end..audio.end), format!("}}{kept}}}").as_bytes());
}

/// Returns the named members of an object as raw text, each after a comma.
fn kept_members(frame: &[u8], object: &Span, names: &[&str]) -> String {
    distinct_members(frame, object)
        .into_iter()
        .filter(|(key, _)| names.contains(&&*text(frame, key)))
        .map(|(key, value)| format!(",{}:{}", raw(frame, &key), raw(frame, &value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::era::fixtures::{edited, response, result_of};
    use crate::jsonrpc::Edits;
    use crate::session::Version;
    use serde_json::{Value, json};

    fn given(result: Value, method: &str, version: &str) -> Value {
        let (frame, message, span) = response(&result.to_string());
        let mut edits = Edits::new();
        crate::era::results::strip(&frame, &span, method, &Version::new(version), &mut edits).unwrap();
        result_of(&edited(&frame, &message, edits))
    }

    /// Returns a legacy child's result as a session of this revision gets it.
    fn passed(result: &Value, method: &str, version: &str) -> Value {
        let (frame, message, span) = response(&result.to_string());
        let mut edits = Edits::new();
        super::result(&frame, &span, method, &Version::new(version), &mut edits);
        result_of(&edited(&frame, &message, edits))
    }

    #[test]
    fn results_of_a_newer_legacy_child_are_downgraded_for_older_sessions() {
        let link = json!({"type": "resource_link", "uri": "u", "name": "n"});
        let said = json!({"content": [link], "structuredContent": {"a": 1}, "isError": false});
        let old = passed(&said, "tools/call", "2025-03-26");
        assert_eq!(old, json!({"content": [{"type": "text", "text": "n: u"}], "isError": false}));
        assert_eq!(passed(&said, "tools/call", "2025-06-18"), said);
        let other = json!({"structuredContent": [1], "content": []});
        assert_eq!(passed(&other, "tools/call", "2025-11-25"), json!({"content": []}), "not an object");
        assert_eq!(passed(&other, "tasks/result", "2025-03-26"), other, "only tools have structured content");
        let resources = json!({"resources": [7, "{", {"uri": "u", "name": "n", "title": "t"}]});
        let old = passed(&resources, "resources/list", "2025-03-26");
        assert_eq!(old, json!({"resources": [7, "{", {"uri": "u", "name": "n"}]}));
        assert_eq!(passed(&resources, "resources/list", "2025-06-18"), resources);
    }

    #[test]
    fn structured_content_that_is_not_an_object_is_removed() {
        let text = json!([{"type": "text", "text": "[1]"}]);
        for (structured, version, kept) in [
            (json!({"a": 1}), "2025-11-25", true),
            (json!({"a": 1}), "2025-06-18", true),
            (json!({"a": 1}), "2025-03-26", false),
            (json!([1]), "2025-11-25", false),
            (json!(null), "2025-06-18", false),
        ] {
            let result =
                given(json!({"content": text, "structuredContent": structured}), "tools/call", version);
            assert_eq!(result["content"], text);
            assert_eq!(result.get("structuredContent"), kept.then_some(&structured), "{version}");
        }
    }

    #[test]
    fn tools_lose_members_that_the_revision_does_not_define() {
        let tool = |output: Value| {
            json!({"tools": [{
                "name": "n", "title": "t", "icons": [], "annotations": {"title": "a"}, "description": "d",
                "inputSchema": {"type": "object", "properties": {"title": {}}}, "outputSchema": output,
            }]})
        };
        let keys_for = |output: Value, version| {
            let result = given(tool(output), "tools/list", version);
            assert_eq!(result["tools"][0]["inputSchema"]["properties"], json!({"title": {}}));
            // Their order depends on the build: Cedar makes maps keep that of the text.
            let keys: std::collections::BTreeSet<_> =
                result["tools"][0].as_object().unwrap().keys().cloned().collect();
            Vec::from_iter(keys).join(" ")
        };
        let all = "annotations description icons inputSchema name outputSchema title";
        let object = json!({"type": "object"});
        assert_eq!(keys_for(object.clone(), "2025-11-25"), all);
        assert_eq!(keys_for(json!({"type": "array"}), "2025-11-25"), all.replace(" outputSchema", ""));
        assert_eq!(keys_for(json!({"anyOf": []}), "2025-06-18"), all.replace(" outputSchema", ""));
        assert_eq!(keys_for(object.clone(), "2025-03-26"), "annotations description inputSchema name");
        assert_eq!(keys_for(object, "2024-11-05"), "description inputSchema name");
    }

    #[test]
    fn schemas_of_properties_become_objects() {
        let schema =
            json!({"type": "object", "properties": {"a": true, "b": false, "c": {"x": true}}, "x": true});
        let expected =
            json!({"type": "object", "properties": {"a": {}, "b": {"not": {}}, "c": {"x": true}}, "x": true});
        let tool = |input: &Value, output: &Value| json!({"tools": [{"name": "n", "inputSchema": input, "outputSchema": output}, {"name": "m"}]});
        let result = given(tool(&schema, &schema), "tools/list", "2025-11-25");
        assert_eq!(result, tool(&expected, &expected));
        let result = given(tool(&schema, &schema), "tools/list", "2025-03-26");
        assert_eq!(result["tools"][0], json!({"name": "n", "inputSchema": expected}));
        for odd in [json!(null), json!({"properties": [true]}), json!({"properties": true})] {
            let mut input = tool(&odd, &json!({"type": "object"}));
            assert_eq!(given(input.clone(), "tools/list", "2025-11-25"), input.take());
        }
    }

    #[test]
    fn titles_and_icons_are_removed_from_every_list() {
        for (method, list) in [
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ] {
            let entry =
                json!({"name": "n", "title": "t", "icons": [], "arguments": [{"name": "a", "title": "t"}]});
            let result = given(json!({list: [entry, 7]}), method, "2025-03-26");
            assert_eq!(result[list][0].get("title"), None);
            assert_eq!(result[list][0].get("icons"), None);
            let argument = &result[list][0]["arguments"][0];
            assert_eq!(argument.get("title").is_none(), method == "prompts/list");
            assert_eq!(given(json!({list: [entry]}), method, "2025-06-18")[list][0], entry);
        }
    }

    #[test]
    fn links_become_text() {
        let link = json!({"type": "resource_link", "uri": "file:///a", "name": "a", "title": "The \"A\"", "description": "first", "annotations": {"priority": 1}});
        let text =
            json!({"type": "text", "text": "The \"A\": file:///a\nfirst", "annotations": {"priority": 1}});
        assert_eq!(given(json!({"content": [link]}), "tools/call", "2025-03-26"), json!({"content": [text]}));
        assert_eq!(given(json!({"content": [link]}), "tools/call", "2025-06-18"), json!({"content": [link]}));
        let messages = |content: &Value| json!({"messages": [{"role": "user", "content": content}]});
        assert_eq!(given(messages(&link), "prompts/get", "2024-11-05"), messages(&text));
        let bare = json!({"content": [{"type": "resource_link", "uri": "u"}]});
        assert_eq!(given(bare, "tools/call", "2024-11-05")["content"][0]["text"], "u");
    }

    #[test]
    fn audio_becomes_a_resource_for_2024_11_05() {
        let audio = json!({"type": "audio", "mimeType": "audio/wav", "data": "UklGRg==", "annotations": {}});
        let content = json!({"content": [{"type": "text", "text": "x"}, audio]});
        assert_eq!(given(content.clone(), "tools/call", "2025-03-26"), content);
        assert_eq!(
            given(content, "tools/call", "2024-11-05")["content"][1],
            json!({"type": "resource", "resource": {"uri": "audio:1", "mimeType": "audio/wav", "blob": "UklGRg=="}, "annotations": {}})
        );
    }
}
