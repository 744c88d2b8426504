//! Golden cases: what documented patterns of ToolHive's policies decide.

use super::compile::{Compiled, compile};
use super::files::File;
use super::*;
use crate::identity::{Identity, Means, Principal};
use crate::policy::{Feature, Hints, Outcome, hints_of};
use serde_json::{Value, json};

fn file(name: &str, text: &str) -> File {
    File { path: name.into(), text: text.to_owned() }
}

/// Compiles policies of a document with these options.
fn set(policies: &[&str], options: Value) -> Set {
    let mut cedar = json!({"policies": policies});
    for (key, value) in options.as_object().expect("options") {
        cedar[key] = value.clone();
    }
    let document = json!({"version": "1.0", "type": "cedarv1", "cedar": cedar}).to_string();
    match compile(&[file("authz.json", &document)], Some("github")) {
        Ok(Compiled { set, .. }) => set,
        Err(faults) => panic!("{}", faults[0]),
    }
}

fn identity(claims: &Value) -> Identity {
    let mut identity = Identity::named(Principal::named("ann").expect("a name"), Means::Proxy);
    identity.claims = claims.as_object().expect("claims").clone();
    identity
}

fn hints(annotations: &Value) -> Hints {
    let tool = json!({"annotations": annotations}).to_string();
    hints_of(tool.as_bytes(), &(0..tool.len()))
}

/// Decides on a request, twice: a remembered decision is the same.
fn decide(
    set: &Set,
    claims: &Value,
    feature: Feature,
    name: &str,
    arguments: Option<&Value>,
    annotations: &Value,
) -> Decision {
    let identity = identity(claims);
    let asker = Asker::new(&identity);
    let arguments = arguments.map(ToString::to_string);
    let arguments = arguments.as_ref().map(|arguments| arguments.as_bytes());
    let request = Request { server: None, feature, name, arguments, hints: hints(annotations) };
    let decision = set.decide(&asker, &request);
    assert_eq!(decision, set.decide(&asker, &request));
    (*decision).clone()
}

fn calls(set: &Set, claims: &Value, tool: &str, arguments: &Value) -> Outcome {
    decide(set, claims, Feature::Tool, tool, Some(arguments), &json!({})).outcome
}

use Outcome::{Allow, Deny, Error};

#[test]
fn nothing_is_allowed_unless_a_policy_permits_it() {
    let set = set(
        &[r#"permit(principal, action == Action::"call_tool", resource == Tool::"weather");"#],
        json!({}),
    );
    let ann = json!({"sub": "ann"});
    assert_eq!(calls(&set, &ann, "weather", &json!({})), Allow);
    assert_eq!(calls(&set, &ann, "Weather", &json!({})), Deny);
    assert_eq!(calls(&set, &ann, "other", &json!({})), Deny);
    let decide = |feature| decide(&set, &ann, feature, "weather", None, &json!({})).outcome;
    assert_eq!([decide(Feature::Prompt), decide(Feature::Resource)], [Deny, Deny]);
}

#[test]
fn each_feature_has_its_action_and_its_resource() {
    let set = set(
        &[
            r#"permit(principal, action == Action::"get_prompt", resource == Prompt::"greeting");"#,
            r#"permit(principal == Client::"ann", action == Action::"read_resource", resource == Resource::"file:///a b?c=\"d\"");"#,
            r#"permit(principal, action, resource) when { resource.feature == "tool" && resource.operation == "call" && resource.name == "t" && action.operation == "call_tool" };"#,
            r#"permit(principal, action, resource) when { resource has uri && resource.uri like "doc://*" && resource.name == resource.uri && resource.operation == "read" && resource.feature == "resource" };"#,
        ],
        json!({}),
    );
    for (feature, name, who, expected) in [
        (Feature::Prompt, "greeting", "bob", Allow),
        (Feature::Prompt, "other", "bob", Deny),
        (Feature::Resource, "file:///a b?c=\"d\"", "ann", Allow),
        (Feature::Resource, "file:///a b?c=\"d\"", "bob", Deny),
        (Feature::Resource, "doc://x", "bob", Allow),
        (Feature::Tool, "t", "bob", Allow),
        (Feature::Tool, "doc://x", "bob", Deny),
    ] {
        let decided = decide(&set, &json!({"sub": who}), feature, name, None, &json!({})).outcome;
        assert_eq!(decided, expected, "{feature:?} {name} {who}");
    }
}

#[test]
fn a_forbid_wins_and_the_deciding_policies_are_named() {
    let set = set(
        &[
            "permit(principal, action, resource);",
            r#"forbid(principal, action, resource == Tool::"delete");"#,
            "permit(principal, action, resource);",
        ],
        json!({}),
    );
    let ann = json!({"sub": "ann"});
    let decided = |tool| decide(&set, &ann, Feature::Tool, tool, None, &json!({}));
    assert_eq!(
        (decided("read").outcome, decided("read").policies),
        (Allow, vec!["policy0".into(), "policy2".into()])
    );
    assert_eq!((decided("delete").outcome, decided("delete").policies), (Deny, vec!["policy1".to_owned()]));
}

#[test]
fn an_evaluation_error_of_any_policy_denies() {
    let set = set(
        &[
            "permit(principal, action, resource);",
            r#"permit(principal, action, resource) when { context.claim_role == "admin" };"#,
        ],
        json!({}),
    );
    assert_eq!(calls(&set, &json!({"sub": "ann", "role": "user"}), "t", &json!({})), Allow);
    let decision = decide(&set, &json!({"sub": "ann"}), Feature::Tool, "t", None, &json!({}));
    assert_eq!(decision.outcome, Error);
    assert_eq!(decision.policies, ["policy1"]);
    assert!(decision.why.contains("attribute") && !decision.why.contains("claim_role"), "{}", decision.why);
}

#[test]
fn claims_are_attributes_of_the_principal_and_of_the_context() {
    let set = set(
        &[
            r#"permit(principal, action, resource == Tool::"a") when { principal.claim_department == "eng" && context.claim_department == "eng" };"#,
            r#"permit(principal, action, resource == Tool::"b") when { principal.claim_roles.contains("admin") };"#,
            r#"permit(principal, action, resource == Tool::"c") when { principal.claim_org.unit.name == "x" };"#,
            r#"permit(principal, action, resource == Tool::"d") when { principal.claim_level.greaterThanOrEqual(decimal("2.0")) };"#,
            r#"permit(principal, action, resource == Tool::"e") when { principal.claim_verified };"#,
            r#"permit(principal, action, resource == Tool::"f") when { !(principal has claim_gone) };"#,
        ],
        json!({}),
    );
    let claims = json!({
        "sub": "ann", "department": "eng", "roles": ["admin", "x"], "org": {"unit": {"name": "x"}}, "level": 2,
        "verified": true, "gone": null,
    });
    for tool in ["a", "b", "c", "d", "e", "f"] {
        // Policies on other tools are not evaluated.
        assert_eq!(calls(&set, &claims, tool, &json!({})), Allow, "{tool}");
    }
    assert_eq!(calls(&set, &json!({"sub": "bob", "department": "ops"}), "a", &json!({})), Deny);
}

#[test]
fn arguments_are_attributes_of_the_resource_and_of_the_context() {
    let set = set(
        &[
            r#"permit(principal, action, resource == Tool::"calc") when { context.arg_operation == "add" || resource.arg_operation == "sub" };"#,
            r#"permit(principal, action, resource == Tool::"pay") when { context.arg_amount.lessThan(decimal("100.0")) };"#,
            r#"permit(principal, action, resource == Tool::"bad") when { context.arg_amount < 100 };"#,
            r#"permit(principal, action, resource == Tool::"files") when { context has arg_paths_present && !(context has arg_paths) };"#,
            r#"permit(principal, action, resource == Tool::"flag") when { context has arg_dry_run && context.arg_dry_run };"#,
        ],
        json!({}),
    );
    let ann = json!({"sub": "ann"});
    for (tool, arguments, expected) in [
        ("calc", json!({"operation": "add"}), Allow),
        ("calc", json!({"operation": "sub"}), Allow),
        ("calc", json!({"operation": "mul"}), Deny),
        ("calc", json!({}), Error),
        ("pay", json!({"amount": 99.99}), Allow),
        ("pay", json!({"amount": 100}), Deny),
        ("pay", json!({"amount": "1"}), Error),
        ("pay", json!({"amount": 1e300}), Error),
        ("bad", json!({"amount": 1}), Error),
        ("files", json!({"paths": ["a"]}), Allow),
        ("files", json!({"paths": {}}), Allow),
        ("files", json!({"paths": null}), Allow),
        ("files", json!({"paths": "a"}), Deny),
        ("flag", json!({"dry_run": true}), Allow),
        ("flag", json!({"dry_run": false}), Deny),
        ("flag", json!({}), Deny),
    ] {
        assert_eq!(calls(&set, &ann, tool, &arguments), expected, "{tool} {arguments}");
    }
}

#[test]
fn an_argument_that_can_be_read_as_another_denies() {
    let set = set(
        &[
            "permit(principal, action, resource);",
            r#"forbid(principal, action, resource) when { context has arg_mode && context.arg_mode == "destroy" };"#,
        ],
        json!({}),
    );
    let ann = identity(&json!({"sub": "ann"}));
    for (arguments, expected) in [
        (r#"{"mode":"safe"}"#, Allow),
        (r#"{"mode":"destroy"}"#, Deny),
        (r#"{"\u006dode":"destroy"}"#, Deny),
        (r#"{"mode":"safe","Mode":"destroy"}"#, Error),
        (r#"{"MODE":"destroy"}"#, Error),
        (r#"{"mode":"destroy","mode":"safe"}"#, Error),
        (r#"{"other":1,"Other":2,"mode":"safe"}"#, Allow),
    ] {
        let given = Some(arguments.as_bytes());
        let request = Request {
            server: None,
            feature: Feature::Tool,
            name: "t",
            arguments: given,
            hints: Hints::default(),
        };
        let decision = set.decide(&Asker::new(&ann), &request);
        assert_eq!(decision.outcome, expected, "{arguments}");
    }
}

#[test]
fn annotations_are_attributes_of_a_tool() {
    let set = set(
        &[
            r#"permit(principal, action == Action::"call_tool", resource) when { resource has readOnlyHint && resource.readOnlyHint };"#,
            r#"forbid(principal, action, resource) when { resource has destructiveHint && resource.destructiveHint };"#,
        ],
        json!({}),
    );
    assert!(set.needs_hints());
    let ann = json!({"sub": "ann"});
    for (annotations, expected) in [
        (json!({"readOnlyHint": true}), Allow),
        (json!({"readOnlyHint": true, "destructiveHint": false}), Allow),
        (json!({"readOnlyHint": true, "destructiveHint": true}), Deny),
        (json!({"readOnlyHint": false}), Deny),
        (json!({}), Deny),
    ] {
        let decided = decide(&set, &ann, Feature::Tool, "t", None, &annotations).outcome;
        assert_eq!(decided, expected, "{annotations}");
    }
    // The names of annotations mean nothing on a prompt.
    assert_eq!(decide(&set, &ann, Feature::Prompt, "t", None, &json!({"readOnlyHint": true})).outcome, Deny);
}

#[test]
fn groups_are_parents_of_the_principal() {
    let team = r#"permit(principal in THVGroup::"eng", action, resource);"#;
    let plain = set(&[team], json!({}));
    assert_eq!(calls(&plain, &json!({"sub": "a", "groups": ["ops", "eng"]}), "t", &json!({})), Allow);
    assert_eq!(calls(&plain, &json!({"sub": "a", "groups": "eng"}), "t", &json!({})), Deny);
    assert_eq!(calls(&plain, &json!({"sub": "a", "roles": ["eng"]}), "t", &json!({})), Allow);
    assert_eq!(calls(&plain, &json!({"sub": "a"}), "t", &json!({})), Deny);
    let named = set(
        &[r#"permit(principal in Team::"eng", action, resource);"#],
        json!({"group_claim_name": "realm_access.teams", "role_claim_name": "job", "group_entity_type": "Team"}),
    );
    assert_eq!(
        calls(&named, &json!({"sub": "a", "realm_access": {"teams": ["eng"]}}), "t", &json!({})),
        Allow
    );
    assert_eq!(calls(&named, &json!({"sub": "a", "groups": ["x"], "job": ["eng"]}), "t", &json!({})), Allow);
    // A group may have parents of its own.
    let entities =
        r#"[{"uid":{"type":"THVGroup","id":"eng"},"attrs":{},"parents":[{"type":"THVRole","id":"writer"}]}]"#;
    let tree = set(
        &[r#"permit(principal in THVRole::"writer", action, resource);"#],
        json!({"entities_json": entities}),
    );
    assert_eq!(calls(&tree, &json!({"sub": "a", "groups": ["eng"]}), "t", &json!({})), Allow);
    assert_eq!(calls(&tree, &json!({"sub": "a", "groups": ["ops"]}), "t", &json!({})), Deny);
}

#[test]
fn the_server_is_the_parent_of_what_it_offers() {
    let set = set(&[r#"permit(principal, action, resource in MCP::"github");"#], json!({}));
    let ann = json!({"sub": "ann"});
    for feature in [Feature::Tool, Feature::Prompt, Feature::Resource] {
        assert_eq!(decide(&set, &ann, feature, "x", None, &json!({})).outcome, Allow);
    }
}

#[test]
fn a_claim_with_several_values_is_a_text_and_a_set() {
    let set = set(
        &[
            r#"permit(principal, action, resource) when { principal.claimset_scp.contains("write") && context.claim_scp == "read write" };"#,
        ],
        json!({"multi_valued_claims": ["scp", "absent"]}),
    );
    for scp in [json!("read write"), json!("read  write"), json!(["read", "write"])] {
        assert_eq!(calls(&set, &json!({"sub": "a", "scp": scp}), "t", &json!({})), Allow, "{scp}");
    }
    assert_eq!(calls(&set, &json!({"sub": "a", "scp": "read"}), "t", &json!({})), Deny);
}

#[test]
fn entities_of_a_request_replace_those_of_the_document() {
    let entities = r#"[
        {"uid":{"type":"Client","id":"ann"},"attrs":{"claim_role":"admin"},"parents":[{"type":"THVGroup","id":"eng"}]},
        {"uid":{"__entity":{"type":"Config","id":"c"}},"attrs":{"owner":"x"},"parents":[]},
        {"uid":{"type":"Config","id":"c"},"attrs":{"owner":"ann"},"parents":[]},
        {"uid":{"type":"Tool","id":"listed"},"attrs":{"owner":"ann"},"parents":[]}
    ]"#;
    let set = set(
        &[
            r#"permit(principal, action, resource == Tool::"a") when { principal has claim_role };"#,
            r#"permit(principal in THVGroup::"eng", action, resource == Tool::"b");"#,
            r#"permit(principal, action, resource == Tool::"c") when { Config::"c".owner == principal.claim_sub };"#,
            r#"permit(principal, action, resource == Tool::"listed") when { resource has owner };"#,
            r#"permit(principal, action, resource == Tool::"d") when { Config::"unknown" has owner };"#,
            r#"permit(principal, action, resource == Tool::"e") when { Config::"unknown".owner == "x" };"#,
        ],
        json!({"entities_json": entities}),
    );
    let ann = json!({"sub": "ann"});
    let decided = |tool| calls(&set, &ann, tool, &json!({}));
    assert_eq!([decided("a"), decided("b"), decided("listed"), decided("d")], [Deny; 4]);
    assert_eq!(decided("c"), Allow, "of two entities the last counts");
    assert_eq!(decided("e"), Error, "an unknown entity has no attributes");
}

#[test]
fn a_cycle_of_parents_denies() {
    let entities =
        r#"[{"uid":{"type":"THVGroup","id":"eng"},"attrs":{},"parents":[{"type":"Client","id":"ann"}]}]"#;
    let set = set(&["permit(principal, action, resource);"], json!({"entities_json": entities}));
    assert_eq!(calls(&set, &json!({"sub": "ann", "groups": ["eng"]}), "t", &json!({})), Error);
    assert_eq!(calls(&set, &json!({"sub": "bob", "groups": ["eng"]}), "t", &json!({})), Allow);
}

#[test]
fn a_large_argument_is_decided_on() {
    let set = set(
        &[r#"permit(principal, action, resource) when { context.arg_text like "*needle*" };"#],
        json!({}),
    );
    let ann = json!({"sub": "ann"});
    let mut text = "x".repeat(1 << 20);
    assert_eq!(calls(&set, &ann, "t", &json!({"text": text})), Deny);
    text.push_str("needle");
    assert_eq!(calls(&set, &ann, "t", &json!({"text": text})), Allow);
    let many: Value =
        (0..5_000).map(|at| (format!("a{at}"), Value::from(at))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(calls(&set, &ann, "t", &many), Error, "the wanted one is missing");
}

#[test]
fn too_many_arguments_for_policies_on_the_whole_context_deny() {
    let set =
        set(&[r#"permit(principal, action, resource) when { ![context].contains({"a": 1}) };"#], json!({}));
    let many = |count: usize| {
        Value::from(
            (0..count).map(|at| (format!("a{at}"), Value::from(at))).collect::<serde_json::Map<_, _>>(),
        )
    };
    assert_eq!(calls(&set, &json!({"sub": "ann"}), "t", &many(1_000)), Allow);
    assert_eq!(calls(&set, &json!({"sub": "ann"}), "t", &many(2_000)), Error);
}

#[test]
fn decisions_are_remembered_for_the_same_claims_only() {
    let set =
        set(&[r#"permit(principal, action, resource) when { principal.claim_role == "admin" };"#], json!({}));
    for (role, expected) in [("admin", Allow), ("user", Deny), ("admin", Allow)] {
        assert_eq!(calls(&set, &json!({"sub": "ann", "role": role}), "t", &json!({"x": 1})), expected);
    }
}

#[test]
fn plain_files_are_policies_and_entities() {
    let files = [
        file(
            "a.cedar",
            "// A comment.\npermit(principal in THVGroup::\"eng\", action, resource);\n\n@id(\"no-delete\")\nforbid(principal, action, resource == Tool::\"delete\");\n",
        ),
        file(
            "b.json",
            r#"[{"uid":{"type":"THVGroup","id":"dev"},"attrs":{},"parents":[{"type":"THVGroup","id":"eng"}]}]"#,
        ),
    ];
    let Ok(Compiled { set, warnings }) = compile(&files, None) else { panic!("valid files") };
    assert_eq!((set.len(), warnings), (2, Vec::<String>::new()));
    let claims = json!({"sub": "ann", "groups": ["dev"]});
    let decided = |tool| decide(&set, &claims, Feature::Tool, tool, None, &json!({}));
    assert_eq!((decided("x").outcome, decided("x").policies), (Allow, vec!["a.0".to_owned()]));
    assert_eq!((decided("delete").outcome, decided("delete").policies), (Deny, vec!["no-delete".to_owned()]));
}

#[test]
fn faults_name_their_place() {
    for (name, text, expected) in [
        ("a.cedar", "permit(principal, action, resource);\npermit(principal, action);\n", "a.cedar:2:"),
        ("a.cedar", "permit(principal, action, resource) when { 1 +  };", "a.cedar:1:4"),
        ("a.cedar", "permit(principal == ?principal, action, resource);", "templates"),
        ("a.cedar", "// nothing\n", "a.cedar: the file has no policy"),
        ("a.json", "[]", "there is no policy"),
        ("a.json", "[{]", "a.json:1: the entities are not JSON"),
        ("a.json", "[{\"uid\":\"x\"}]", "no uid"),
        (
            "a.json",
            "[{\"uid\":{\"type\":\"A\",\"id\":\"a\"},\"attrs\":{\"x\":null},\"parents\":[]}]",
            "the entity A::\"a\" is invalid",
        ),
        (
            "a.yaml",
            "version: '1.0'\ntype: cedarv1\ncedar:\n  policies:\n    - permit(principal, action, resource);\n    - |\n      permit(\n        principal);\n",
            "a.yaml:7: policy1 in its line 2, column 12",
        ),
        (
            "a.yaml",
            "version: '1.0'\ntype: cedarv1\ncedar:\n  policies: ['permit(principal,action,resource);']\n  group_entity_type: A::B\n",
            "a.yaml:5: group_entity_type",
        ),
        (
            "a.yaml",
            "version: '1.0'\ntype: cedarv1\ncedar:\n  policies: ['permit(principal,action,resource);']\n  group_entity_type: in\n",
            "a.yaml:5: group_entity_type",
        ),
        (
            "a.yaml",
            "version: '1.0'\ntype: cedarv1\ncedar:\n  policies: ['permit(principal,action,resource);permit(principal,action,resource);']\n",
            "policy0",
        ),
    ] {
        let Err(faults) = compile(&[file(name, text)], None) else { panic!("{text}") };
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(shown.iter().any(|fault| fault.contains(expected)), "{text}: {shown:?}");
    }
    let twice = [
        file("a.cedar", "@id(\"x\") permit(principal, action, resource);"),
        file("b.cedar", "@id(\"x\") permit(principal, action, resource);"),
    ];
    assert!(compile(&twice, None).is_err());
}

#[test]
fn actions_that_are_never_asked_for_are_remarked_on() {
    let text = r#"permit(principal, action in [Action::"list_tools", Action::"calltool", Action::"call_tool"], resource);"#;
    let Ok(Compiled { warnings, .. }) = compile(&[file("a.cedar", text)], None) else { panic!("valid") };
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("calltool") && warnings[1].contains("list_tools"), "{warnings:?}");
}

#[test]
fn types_that_no_entity_has_are_remarked_on() {
    let warnings = |text: &str| {
        let Ok(Compiled { warnings, .. }) = compile(&[file("a.cedar", text)], None) else { panic!("{text}") };
        warnings
    };
    for (text, kind) in [
        (r#"forbid(principal == User::"a", action, resource);"#, "User"),
        (r#"forbid(principal, action, resource == tool::"x");"#, "tool"),
        (r#"forbid(principal in THVGroop::"x", action, resource);"#, "THVGroop"),
        (r#"forbid(principal, action, resource) when { principal is Users };"#, "Users"),
        (r#"forbid(principal, action, resource) when { resource in Server::"x" };"#, "Server"),
    ] {
        let told = warnings(text);
        assert!(told.len() == 1 && told[0].contains(&format!("the type {kind}, so")), "{text}: {told:?}");
    }
    let known = r#"permit(principal in THVGroup::"a", action == Action::"call_tool", resource in MCP::"x")
        when { principal == Client::"b" || resource == Tool::"c" || resource is Prompt };"#;
    assert_eq!(warnings(known), [""; 0]);
    let entities = r#"[{"uid":{"type":"Tool","id":"x"},"attrs":{},"parents":[{"type":"Kit","id":"k"}]}]"#;
    let files =
        [file("a.cedar", r#"permit(principal, action, resource in Kit::"k");"#), file("b.json", entities)];
    let Ok(Compiled { warnings, .. }) = compile(&files, None) else { panic!("valid") };
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn an_explanation_shows_the_entities() {
    let set = set(&["permit(principal, action, resource);"], json!({}));
    let ann = identity(&json!({"sub": "ann", "groups": ["eng"]}));
    let request = Request {
        server: None,
        feature: Feature::Tool,
        name: "t",
        arguments: Some(b"{\"x\":1}"),
        hints: Hints::default(),
    };
    let explained = set.explain(&Asker::new(&ann), &request).expect("an explanation");
    assert_eq!(explained.decision.outcome, Allow);
    assert_eq!(explained.request, ["Client::\"ann\"", "Action::\"call_tool\"", "Tool::\"t\""]);
    assert!(explained.entities.to_string().contains("THVGroup"), "{}", explained.entities);
    assert_eq!(explained.context["claim_sub"], "ann");
}

/// Prints how long decisions take. Run it with optimizations:
/// `cargo test --lib --config profile.dev.opt-level=3 policy::cedar::tests::timings -- --ignored --nocapture`.
#[test]
#[ignore = "prints times, and asserts none"]
fn timings() {
    let of = |count: usize, condition: &str| -> Vec<String> {
        let policy = |at: usize| {
            format!(
                r#"permit(principal in THVGroup::"g{at}", action == Action::"call_tool", resource == Tool::"t{at}") when {{ {condition} }};"#
            )
        };
        let mut policies: Vec<_> = (0..count - 1).map(policy).collect();
        policies.push(format!(
            r#"permit(principal in THVGroup::"eng", action, resource) when {{ {condition} }};"#
        ));
        policies
    };
    let claims = json!({
        "sub": "ann", "iss": "https://idp.example", "aud": ["mcp"], "exp": 1_800_000_000, "iat": 1_700_000_000,
        "scope": "read write", "groups": ["eng", "ops", "x"], "email": "ann@example.com", "department": "eng",
    });
    let identity = identity(&claims);
    let arguments = json!({"path": "/a/b", "amount": 3.5, "force": false, "list": [1, 2]}).to_string();
    for (what, count, condition, given) in [
        ("4 policies, arguments", 4, "context.arg_path like \"/a/*\"", true),
        ("50 policies, arguments", 50, "context.arg_path like \"/a/*\"", true),
        ("50 policies, remembered", 50, "principal.claim_department == \"eng\"", true),
    ] {
        let policies = of(count, condition);
        let set = set(&policies.iter().map(String::as_str).collect::<Vec<_>>(), json!({}));
        let arguments = Some(arguments.as_bytes()).filter(|_| given);
        let request =
            Request { server: None, feature: Feature::Tool, name: "t", arguments, hints: Hints::default() };
        let rounds = 20_000_u32;
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            let begun = std::time::Instant::now();
            for _ in 0..rounds {
                let decision = set.decide(&Asker::new(&identity), &request);
                assert_eq!(std::hint::black_box(decision).outcome, Allow);
            }
            best = best.min(begun.elapsed() / rounds);
        }
        println!("{what}: {best:?}");
    }
}
