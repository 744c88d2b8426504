//! Checks that manifests of any kind are rewritten or refused, that a rewritten one is left as it is the second time,
//! and that a written tree is read as the same tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyrunner::internals::inject::{Options, documents, rewrite, written};

/// A Pod around the input, so that most of it is reached.
const POD: &str = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: s\n    command: [x]\n";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(found) = documents(text) {
        for document in found {
            let (Some(tree), None) = (document.content, document.unkept) else { continue };
            let again = written(&tree);
            let found = documents(&again).expect("written trees are YAML");
            assert_eq!(found.len(), 1, "{again}");
            assert_eq!(found[0].content.as_ref(), Some(&tree), "{again}");
        }
    }
    let options = Options { command: Some(vec!["/server".to_owned()]), ..Options::default() };
    for text in [text, &format!("{POD}{text}"), &format!("---\n{text}\n---\n{POD}")] {
        if let Ok(once) = rewrite(text, &options) {
            assert_eq!(rewrite(&once, &options).as_ref(), Ok(&once));
        }
    }
});
