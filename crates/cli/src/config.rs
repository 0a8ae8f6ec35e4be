//! The settings of the server as a file.
//!
//! A setting is declared once, as an option of `trine server` ([`ServerArgs`]). Its key in the file, the
//! comment that `--print-config` writes and the JSON Schema come from there. What a file says becomes the
//! option's default, so the command line and the environment win over it.

use std::{any::TypeId, fmt::Write, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::{Arg, ArgMatches, Args, Command};
use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};

use crate::server::ServerArgs;

/// Columns of a comment.
const WIDTH: usize = 100;

/// Reads the command line, and the file that `trine server --config` names below it.
pub fn matches(command: Command) -> anyhow::Result<ArgMatches> {
    let matches = command.clone().get_matches();
    let server = matches.subcommand_matches("server");
    let Some(path) = server.and_then(|server| server.get_one::<PathBuf>("config")) else {
        return Ok(matches);
    };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {shown}; name another file with --config"))?;
    let settings = parse(&text).map_err(|fault| anyhow!("{shown}:{}: {}", fault.line, fault.message))?;
    let command = command.mut_subcommand("server", |server| {
        settings
            .into_iter()
            .fold(server, |server, (key, value)| server.mut_arg(key, |option| option.default_value(value)))
    });
    Ok(command.get_matches())
}

/// What is wrong with a file, and where.
#[derive(Debug)]
struct Fault {
    /// From 1.
    line: usize,
    message: String,
}

/// Keys and values, all known and right.
fn parse(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let line = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let line = line(error.span().map_or(0, |span| span.start));
        Fault { line, message: format!("no valid TOML: {}", error.message()) }
    })?;
    let options = options();
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let refuse = |message| Err(Fault { line: line(key.span().start), message });
        let key = key.get_ref().as_ref();
        let Some(option) = options.iter().find(|option| option.get_id() == key) else {
            let known: Vec<_> = options.iter().map(|option| option.get_id().as_str()).collect();
            return refuse(format!("{key} is no setting; the settings are {}", known.join(", ")));
        };
        let written = &text[value.span()];
        let value = match value.get_ref() {
            DeValue::String(value) => value.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Integer(value) => value.to_string(),
            other => {
                let kind = other.type_str();
                return refuse(format!(
                    "{key} = {written} is of type {kind}; write a text, number or boolean"
                ));
            }
        };
        if let Err(reason) = check(option, &value) {
            return refuse(format!("{key} = {written} cannot be taken: {reason}"));
        }
        settings.push((key.to_owned(), value));
    }
    Ok(settings)
}

/// The settings of the server.
fn options() -> Vec<Arg> {
    ServerArgs::augment_args(Command::new("server")).get_arguments().cloned().collect()
}

/// Lets the option's own parser look at a value; the reason against it, with an example.
fn check(option: &Arg, value: &str) -> Result<(), String> {
    let id = option.get_id().to_string();
    let alone = option.clone().long(id.clone()).env(None::<&'static str>);
    let command = Command::new("server").no_binary_name(true).arg(alone);
    let Err(error) = command.try_get_matches_from([format!("--{id}={value}")]) else { return Ok(()) };
    let names: Vec<_> = option.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    if !names.is_empty() {
        return Err(format!("write {}", names.join(" or ")));
    }
    let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    let example = default(option).map(|value| format!("; write e.g. {value:?}")).unwrap_or_default();
    Err(if reason.contains("write e.g.") { reason } else { reason + &example })
}

fn default(option: &Arg) -> Option<String> {
    Some(option.get_default_values().first()?.to_string_lossy().into_owned())
}

fn help(option: &Arg) -> String {
    option.get_long_help().or(option.get_help()).map(ToString::to_string).unwrap_or_default()
}

fn is<T: 'static>(option: &Arg) -> bool {
    option.get_value_parser().type_id() == TypeId::of::<T>()
}

/// The settings in force as a file, each below its help.
pub fn print(matches: &ArgMatches) -> String {
    let mut text =
        "# Settings of `trine server --config FILE`. The command line and the environment (TRINE_...)\n\
                    # win over them. What is not set here has its default.\n"
            .to_owned();
    for option in options() {
        let key = option.get_id().as_str();
        text.push('\n');
        comment(&mut text, &help(&option));
        for value in option.get_possible_values() {
            if let Some(help) = value.get_help() {
                comment(&mut text, &format!("- {}: {help}", value.get_name()));
            }
        }
        let value = matches.get_raw(key).and_then(|mut values| values.next()).map(|v| v.to_string_lossy());
        match value {
            Some(value) if is::<bool>(&option) => writeln!(text, "{key} = {value}"),
            Some(value) => writeln!(text, "{key} = {}", toml::Value::from(value.as_ref())),
            None => writeln!(text, "# {key} is not set"),
        }
        .expect("BUG: a String takes everything");
    }
    text
}

/// Wraps words behind `# `.
fn comment(text: &mut String, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column == 0 || column + 1 + word.len() > WIDTH {
            text.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.len();
    }
    text.push('\n');
}

/// A JSON Schema of the file, for editors and checks.
pub fn schema() -> Value {
    let properties: serde_json::Map<_, _> = options()
        .iter()
        .map(|option| {
            let mut schema = json!({"description": help(option), "type": "string"});
            if is::<bool>(option) {
                schema["type"] = "boolean".into();
            } else if is::<u64>(option) {
                schema["type"] = json!(["string", "integer"]);
            } else if !option.get_possible_values().is_empty() {
                let names = option.get_possible_values();
                schema["enum"] = names.iter().map(clap::builder::PossibleValue::get_name).collect();
            }
            if let Some(value) = default(option) {
                schema["default"] =
                    if is::<bool>(option) { Value::Bool(value == "true") } else { Value::String(value) };
            }
            (option.get_id().to_string(), schema)
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of trine server",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let fault = parse(text).unwrap_err();
        format!("{}: {}", fault.line, fault.message)
    }

    #[test]
    fn a_file_is_read_and_its_faults_are_named() {
        let text =
            "http = \"[::1]:80\" # here\nfsync = false\nmemtable_bytes = 1_000\nretention_age = '30d'\n";
        let pairs =
            [("fsync", "false"), ("http", "[::1]:80"), ("memtable_bytes", "1000"), ("retention_age", "30d")];
        assert_eq!(parse(text).unwrap(), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));

        for (text, want) in [
            (
                "\nhttp = 7070",
                "2: http = 7070 cannot be taken: invalid socket address syntax; write e.g. \"127.0.0.1:7070\"",
            ),
            (
                "retention_age = \"soon\"",
                "1: retention_age = \"soon\" cannot be taken: \"soon\" is no duration; write e.g. 90s, 10m, 12h or 30d",
            ),
            ("bodies = \"thin\"", "1: bodies = \"thin\" cannot be taken: write templates or plain"),
            ("fsync = 1", "1: fsync = 1 cannot be taken: write true or false"),
            ("http = [\"a\"]", "1: http = [\"a\"] is of type array; write a text, number or boolean"),
        ] {
            assert_eq!(fault(text), want);
        }
        assert!(
            fault("# x\nport = 1").starts_with("2: port is no setting; the settings are data_dir, http, ")
        );
        assert!(fault("fsync = true\nhttp =").starts_with("2: no valid TOML: "));
        assert!(fault("fsync = true\nfsync = true").contains("duplicate key"));
    }
}
