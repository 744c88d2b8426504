//! The command line of `proxyrunner inject`.

use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;
use std::path::PathBuf;

/// The wrapper to inject.
#[derive(Clone, Debug)]
pub struct Options {
    /// The entry point for containers without a command.
    pub command: Option<Vec<String>>,
    /// The name of the server's container.
    pub container: Option<String>,
    /// The image that contains proxyrunner.
    pub image: String,
    /// The way in which the binary reaches the server's container.
    pub mode: Mode,
    /// The port to listen on, if it was given.
    pub port: Option<u16>,
}

/// The way in which the binary reaches the server's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An init container copies it into a volume.
    Init,
    /// The image is mounted as a volume.
    ImageVolume,
}

impl Default for Options {
    fn default() -> Options {
        let image = concat!("proxyrunner:", env!("CARGO_PKG_VERSION")).to_owned();
        Options { command: None, container: None, image, mode: Mode::Init, port: None }
    }
}

/// Parses the words after `inject`; returns the file, unless it is stdin, and the options.
///
/// # Errors
/// Help, and wrong options.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<(Option<PathBuf>, Options), clap::Error> {
    let words = std::iter::once(OsString::from("inject")).chain(words);
    let mut found = command().try_get_matches_from(words)?;
    let file = found.remove_one::<PathBuf>("file").filter(|path| path.as_os_str() != "-");
    let default = Options::default();
    let options = Options {
        command: found.remove_one("command"),
        container: found.remove_one("container"),
        image: found.remove_one("image").unwrap_or(default.image),
        mode: found.remove_one("mode").unwrap_or(default.mode),
        port: found.remove_one("port"),
    };
    Ok((file, options))
}

/// Returns the command line of `inject`.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Set)
    };
    let default = Options::default();
    Command::new("inject")
        .bin_name("proxyrunner inject")
        .about("Puts proxyrunner in front of the MCP server in Kubernetes manifests")
        .override_usage("proxyrunner inject [OPTIONS] < manifest.yaml")
        .args([
            option("file", "FILE", "File with the manifests, YAML or JSON (-, or none: stdin)")
                .short('f')
                .value_parser(clap::value_parser!(PathBuf)),
            option("command", "COMMAND", "Entry point where a container has none: words, or a JSON list")
                .value_parser(entry_point),
            option("container", "NAME", "Container of the MCP server, if a pod has several"),
            option("image", "IMAGE", "Image that contains proxyrunner")
                .value_parser(image)
                .long_help(format!("Image that contains proxyrunner [default: {}]", default.image)),
            option("mode", "MODE", "How the binary is mounted: init or image-volume (Kubernetes 1.35)")
                .value_parser(mode),
            option("port", "PORT", "Port to listen on, named mcp [default: 8080]")
                .value_parser(clap::value_parser!(u16).range(1..)),
        ])
        .after_help(
            "Reads Pods, Deployments, StatefulSets and ToolHive's MCPServers, and prints them with proxyrunner as\n\
             the server's entry point, with probes, port, limits and security context where they were missing.\n\
             Documents of other kinds, and those that are injected already, are printed unchanged. In rewritten\n\
             documents comments are lost; order and values of all other keys stay.\n\n\
             Annotations of a pod: proxyrunner/command, proxyrunner/container.\n\
             Exit codes: 64 for bad options, 65 for manifests that are refused.",
        )
        .max_term_width(110)
}

fn image(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err("give the name of an image".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "init" => Ok(Mode::Init),
        "image-volume" => Ok(Mode::ImageVolume),
        _ => Err("give init or image-volume".to_owned()),
    }
}

/// Parses an entry point: a JSON list of strings, or words between spaces.
///
/// # Errors
/// The reason, and what to give.
pub fn entry_point(text: &str) -> Result<Vec<String>, String> {
    const HOW: &str =
        "give words, such as `python3 server.py`, or a JSON list, such as [\"python3\", \"server.py\"]";
    let words = if text.trim_start().starts_with('[') {
        serde_json::from_str::<Vec<String>>(text)
            .map_err(|_| format!("is not a JSON list of strings; {HOW}"))?
    } else if text.contains(['"', '\'', '\\', '`']) {
        return Err(
            "contains a quote or a backslash, but no shell reads it; give a JSON list of strings".to_owned()
        );
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    match words.first() {
        Some(first) if !first.is_empty() => Ok(words),
        _ => Err(format!("is empty; {HOW}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<(Option<PathBuf>, Options), clap::Error> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn clap_accepts_the_options() {
        command().debug_assert();
    }

    #[test]
    fn options_are_read() {
        let (file, options) = parsed(&[]).expect("options");
        assert_eq!((file, options.port, options.mode), (None, None, Mode::Init));
        let words =
            ["-f", "-", "--mode", "image-volume", "--port", "9000", "--command", "a b", "--container", "c"];
        let (file, options) = parsed(&words).expect("options");
        assert_eq!((file, options.port, options.mode), (None, Some(9000), Mode::ImageVolume));
        assert_eq!(options.command.expect("a command"), ["a", "b"]);
        assert_eq!(options.container.as_deref(), Some("c"));
        assert_eq!(parsed(&["-f", "x.yaml"]).expect("options").0, Some("x.yaml".into()));
    }

    #[test]
    fn wrong_options_are_errors_and_help_is_none() {
        for words in [
            &["--port", "0"][..],
            &["--mode", "x"],
            &["--image", ""],
            &["--image", "a b"],
            &["--command", ""],
            &["x"],
            &["--imag"],
        ] {
            assert!(parsed(words).expect_err("an error").use_stderr(), "{words:?}");
        }
        let help = parsed(&["--help"]).expect_err("help");
        assert!(!help.use_stderr() && help.to_string().contains("comments are lost"), "{help}");
    }

    #[test]
    fn entry_points_are_words_or_json() {
        assert_eq!(entry_point(" python3  server.py ").expect("words"), ["python3", "server.py"]);
        assert_eq!(entry_point(r#"["sh", "-c", "a 'b'"]"#).expect("JSON"), ["sh", "-c", "a 'b'"]);
        for bad in ["", "  ", "[]", "[1]", "[\"a\"", "sh -c 'a b'", "[\"\"]"] {
            assert!(entry_point(bad).is_err(), "{bad}");
        }
    }
}
