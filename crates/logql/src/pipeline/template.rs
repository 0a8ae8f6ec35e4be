//! Go's `text/template`, as far as log lines need it: fields, texts, numbers, function calls,
//! pipelines, parentheses, variables, `if`/`else if`/`else`/`with`, comments and trim markers.
//! Not known are `range`, `define`, `template` and `block`.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    functions::{self, Builtin},
    labels::LabelSet,
};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 32;

/// Largest result, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// A value at run time.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Value<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds since 1970.
    Time(i64),
}

/// What a template sees of a line.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Its labels.
    pub labels: &'a LabelSet,
    /// The line so far.
    pub line: &'a str,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Output(Pipe),
    Assign(String, Pipe),
    If { branches: Vec<(Pipe, Vec<Node>)>, otherwise: Vec<Node> },
}

/// Commands; the result of each is the last argument of the next.
#[derive(Debug, Clone)]
struct Pipe(Vec<Command>);

#[derive(Debug, Clone)]
struct Command {
    function: Option<&'static Builtin>,
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone)]
enum Argument {
    Field(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Variable(String),
    Pipe(Pipe),
}

/// A compiled template.
#[derive(Debug, Clone)]
pub struct Template(Vec<Node>);

impl Template {
    /// Reads a template.
    pub fn new(text: &str) -> Result<Self, String> {
        let pieces = split(text)?;
        let mut reader = BlockReader { pieces: &pieces, at: 0 };
        let (nodes, end) = reader.nodes(MAX_DEPTH).map_err(|e| format!("invalid template: {e}"))?;
        match end {
            Stop::Text => Ok(Self(nodes)),
            _ => Err("invalid template: {{else}} or {{end}} stands without {{if}}".to_owned()),
        }
    }

    /// Appends the result for a line.
    pub fn write(&self, context: Context<'_>, out: &mut String) -> Result<(), String> {
        // The common templates are texts and bare fields; they need no values.
        let mut variables = Vec::new();
        write_nodes(&self.0, context, &mut variables, out)
    }

    /// Adds the names of labels that the template reads.
    pub fn collect_fields(&self, wanted: &mut Vec<String>) {
        collect_nodes(&self.0, wanted);
    }
}

fn collect_nodes(nodes: &[Node], wanted: &mut Vec<String>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Output(pipe) | Node::Assign(_, pipe) => collect_pipe(pipe, wanted),
            Node::If { branches, otherwise } => {
                for (pipe, nodes) in branches {
                    collect_pipe(pipe, wanted);
                    collect_nodes(nodes, wanted);
                }
                collect_nodes(otherwise, wanted);
            }
        }
    }
}

fn collect_pipe(pipe: &Pipe, wanted: &mut Vec<String>) {
    for argument in pipe.0.iter().flat_map(|command| &command.arguments) {
        match argument {
            Argument::Field(name) => wanted.push(name.clone()),
            Argument::Pipe(pipe) => collect_pipe(pipe, wanted),
            _ => {}
        }
    }
}

type Variables<'a> = Vec<(&'a str, Value<'a>)>;

fn write_nodes<'a>(
    nodes: &'a [Node],
    context: Context<'a>,
    variables: &mut Variables<'a>,
    out: &mut String,
) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Output(Pipe(commands)) => match commands.as_slice() {
                [Command { function: None, arguments }]
                    if matches!(arguments.as_slice(), [Argument::Field(_)]) =>
                {
                    let Argument::Field(name) = &arguments[0] else { continue };
                    out.push_str(context.labels.get(name));
                }
                _ => write_value(out, &evaluate(commands, context, variables)?),
            },
            Node::Assign(name, Pipe(commands)) => {
                let value = evaluate(commands, context, variables)?;
                variables.push((name, value));
            }
            Node::If { branches, otherwise } => {
                let mut chosen = otherwise;
                for (Pipe(condition), nodes) in branches {
                    if is_true(&evaluate(condition, context, variables)?) {
                        chosen = nodes;
                        break;
                    }
                }
                let scope = variables.len();
                write_nodes(chosen, context, variables, out)?;
                variables.truncate(scope);
            }
        }
        if out.len() > MAX_OUTPUT_BYTES {
            return Err(format!("the result has more than {MAX_OUTPUT_BYTES} bytes"));
        }
    }
    Ok(())
}

fn evaluate<'a>(
    commands: &'a [Command],
    context: Context<'a>,
    variables: &Variables<'a>,
) -> Result<Value<'a>, String> {
    let mut carried: Option<Value<'a>> = None;
    for command in commands {
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for argument in &command.arguments {
            arguments.push(match argument {
                Argument::Field(name) => Value::Text(Cow::Borrowed(context.labels.get(name))),
                Argument::Text(text) => Value::Text(Cow::Borrowed(text)),
                Argument::Int(value) => Value::Int(*value),
                Argument::Float(value) => Value::Float(*value),
                Argument::Bool(value) => Value::Bool(*value),
                Argument::Variable(name) => match variables.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => value.clone(),
                    None => return Err(format!("undefined variable ${name}")),
                },
                Argument::Pipe(pipe) => evaluate(&pipe.0, context, variables)?,
            });
        }
        arguments.extend(carried.take());
        carried = Some(match command.function {
            Some(builtin) => functions::call(builtin, context, arguments)?,
            None => arguments.swap_remove(0),
        });
    }
    Ok(carried.unwrap_or(Value::Text(Cow::Borrowed(""))))
}

/// Go's truth: empty and zero are false.
pub fn is_true(value: &Value<'_>) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Int(value) => *value != 0,
        Value::Float(value) => *value != 0.0,
        Value::Bool(value) => *value,
        Value::Time(_) => true,
    }
}

/// Appends a value as Go prints it.
pub fn write_value(out: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Text(text) => {
            out.push_str(text);
            Ok(())
        }
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Time(nanoseconds) => {
            out.push_str(&super::go_time::format(*nanoseconds, "2006-01-02 15:04:05.999999999 -0700 MST"));
            Ok(())
        }
    };
}

/// A text or an action.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Field(String),
    Variable(String),
    Text(String),
    Number(String),
    Sign(char),
    Assign,
}

fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (mut before, mut inner) = (&rest[..open], &rest[open + 2..]);
        if inner.starts_with("- ") || inner.starts_with("-\n") || inner.starts_with("-\t") {
            before = before.trim_end();
            inner = &inner[1..];
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        if inner.trim_start().starts_with("/*") {
            let end = inner.find("*/").ok_or("a comment is not closed")?;
            let tail = inner[end + 2..].trim_start();
            let trimmed = tail.strip_prefix("-}}").map(str::trim_start);
            rest = trimmed.or_else(|| tail.strip_prefix("}}")).ok_or("a comment is not closed")?;
            continue;
        }
        let (tokens, consumed, trim) = action_tokens(inner).map_err(|e| format!("invalid template: {e}"))?;
        pieces.push(Piece::Action(tokens));
        rest = &inner[consumed..];
        if trim {
            rest = rest.trim_start();
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Tokens up to `}}`, the bytes consumed, and whether white space behind is trimmed.
fn action_tokens(text: &str) -> Result<(Vec<Token>, usize, bool), String> {
    let mut tokens = Vec::new();
    let bytes = text.as_bytes();
    let word_end = |start: usize| {
        text[start..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(text.len(), |n| start + n)
    };
    let mut at = 0;
    loop {
        let Some(byte) = bytes.get(at).copied() else {
            return Err("an action is not closed; add }}".to_owned());
        };
        if text[at..].starts_with("}}") {
            return Ok((tokens, at + 2, false));
        }
        if text[at..].starts_with("-}}") {
            return Ok((tokens, at + 3, true));
        }
        let start = at;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'.' if !bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                at = word_end(at + 1);
                if at == start + 1 {
                    return Err("a dot alone is not known; write .label".to_owned());
                }
                tokens.push(Token::Field(text[start + 1..at].to_owned()));
            }
            b'$' => {
                at = word_end(at + 1);
                tokens.push(Token::Variable(text[start + 1..at].to_owned()));
            }
            b'"' => {
                let mut end = at + 1;
                while bytes.get(end).is_some_and(|b| *b != b'"') {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let raw = text.get(at..=end).ok_or("a text is not closed")?;
                let tokens_of = crate::lexer::tokenize(raw).map_err(|e| e.message)?;
                match tokens_of.into_iter().next() {
                    Some((crate::lexer::Token::Text(value), _)) => tokens.push(Token::Text(value)),
                    _ => return Err("a text is not closed".to_owned()),
                }
                at = end + 1;
            }
            b'`' => {
                let end = text[at + 1..].find('`').ok_or("a text is not closed")?;
                tokens.push(Token::Text(text[at + 1..at + 1 + end].to_owned()));
                at += end + 2;
            }
            b'0'..=b'9' | b'-' | b'+' | b'.' => {
                at += 1;
                while bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'.') {
                    at += 1;
                }
                tokens.push(Token::Number(text[start..at].to_owned()));
            }
            b'|' | b'(' | b')' | b',' => {
                tokens.push(Token::Sign(byte as char));
                at += 1;
            }
            b':' if bytes.get(at + 1) == Some(&b'=') => {
                tokens.push(Token::Assign);
                at += 2;
            }
            b'=' => {
                tokens.push(Token::Assign);
                at += 1;
            }
            _ => {
                at = word_end(at);
                if at == start {
                    let c = text[at..].chars().next().unwrap_or(' ');
                    return Err(format!("unexpected character {c:?}"));
                }
                tokens.push(Token::Word(text[start..at].to_owned()));
            }
        }
    }
}

struct BlockReader<'a> {
    pieces: &'a [Piece],
    at: usize,
}

/// What ended a run of nodes.
enum Stop {
    Text,
    BlockEnd,
    /// `else`, with the tokens of its condition.
    Else(Vec<Token>),
}

impl BlockReader<'_> {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), String> {
        if depth == 0 {
            return Err("blocks nest too deep".to_owned());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            match tokens.as_slice() {
                [] => return Err("an action is empty".to_owned()),
                [Token::Word(word)] if word == "end" => return Ok((nodes, Stop::BlockEnd)),
                [Token::Word(word), rest @ ..] if word == "else" => {
                    return Ok((nodes, Stop::Else(rest.to_vec())));
                }
                [Token::Word(word), condition @ ..] if word == "if" || word == "with" => {
                    nodes.push(self.block(condition, depth - 1)?);
                }
                [Token::Word(word), ..]
                    if matches!(word.as_str(), "range" | "define" | "template" | "block") =>
                {
                    return Err(format!("{{{{{word}}}}} is not supported"));
                }
                [Token::Variable(name), Token::Assign, rest @ ..] => {
                    nodes.push(Node::Assign(name.clone(), pipe(rest, depth)?));
                }
                tokens => nodes.push(Node::Output(pipe(tokens, depth)?)),
            }
        }
        Ok((nodes, Stop::Text))
    }

    fn block(&mut self, condition: &[Token], depth: usize) -> Result<Node, String> {
        let mut branches = Vec::new();
        let mut condition = pipe(condition, depth)?;
        loop {
            let (body, end) = self.nodes(depth)?;
            branches.push((condition, body));
            match end {
                Stop::Text => return Err("{{if}} without {{end}}".to_owned()),
                Stop::BlockEnd => return Ok(Node::If { branches, otherwise: Vec::new() }),
                Stop::Else(tokens) => match tokens.split_first() {
                    None => {
                        let (otherwise, Stop::BlockEnd) = self.nodes(depth)? else {
                            return Err("{{else}} without {{end}}".to_owned());
                        };
                        return Ok(Node::If { branches, otherwise });
                    }
                    Some((Token::Word(word), rest)) if word == "if" || word == "with" => {
                        condition = pipe(rest, depth)?;
                    }
                    Some(_) => return Err("after {{else}} comes nothing or `if`".to_owned()),
                },
            }
        }
    }
}

fn pipe(tokens: &[Token], depth: usize) -> Result<Pipe, String> {
    if depth == 0 {
        return Err("parentheses nest too deep".to_owned());
    }
    let mut commands = Vec::new();
    let mut open = 0usize;
    let mut start = 0;
    for at in 0..=tokens.len() {
        match tokens.get(at) {
            Some(Token::Sign('(')) => open += 1,
            Some(Token::Sign(')')) => open = open.checked_sub(1).ok_or("`)` without `(`")?,
            _ => {}
        }
        if at == tokens.len() || (open == 0 && tokens[at] == Token::Sign('|')) {
            let carries = !commands.is_empty();
            commands.push(command(&tokens[start..at], carries, depth)?);
            start = at + 1;
        }
    }
    if open > 0 {
        return Err("`(` without `)`".to_owned());
    }
    Ok(Pipe(commands))
}

fn command(tokens: &[Token], carries: bool, depth: usize) -> Result<Command, String> {
    let (function, mut at) = match tokens.first() {
        None => return Err("a value or function is missing".to_owned()),
        Some(Token::Word(word)) if !matches!(word.as_str(), "true" | "false" | "nil") => {
            let builtin = functions::find(word).ok_or_else(|| format!("function {word:?} is not known"))?;
            (Some(builtin), 1)
        }
        Some(_) => (None, 0),
    };
    let mut arguments = Vec::new();
    while at < tokens.len() {
        arguments.push(match &tokens[at] {
            Token::Field(name) => Argument::Field(name.clone()),
            Token::Variable(name) => Argument::Variable(name.clone()),
            Token::Text(text) => Argument::Text(text.clone()),
            Token::Number(text) => match (text.parse(), text.parse()) {
                (Ok(value), _) => Argument::Int(value),
                (_, Ok(value)) => Argument::Float(value),
                _ => return Err(format!("{text:?} is no number")),
            },
            Token::Word(word) if word == "true" || word == "false" => Argument::Bool(word == "true"),
            Token::Word(word) if word == "nil" => Argument::Text(String::new()),
            Token::Word(_) => Argument::Pipe(pipe(&tokens[at..=at], depth - 1)?),
            Token::Sign('(') => {
                let mut open = 1;
                let mut end = at + 1;
                while open > 0 {
                    match tokens.get(end) {
                        Some(Token::Sign('(')) => open += 1,
                        Some(Token::Sign(')')) => open -= 1,
                        Some(_) => {}
                        None => return Err("`(` without `)`".to_owned()),
                    }
                    end += 1;
                }
                let inner = pipe(&tokens[at + 1..end - 1], depth - 1)?;
                at = end - 1;
                Argument::Pipe(inner)
            }
            Token::Sign(sign) => return Err(format!("unexpected `{sign}`")),
            Token::Assign => return Err("unexpected `=`".to_owned()),
        });
        at += 1;
    }
    let count = arguments.len() + usize::from(carries);
    match function {
        None if arguments.len() != 1 || carries => {
            Err("a value takes no arguments; only functions do".to_owned())
        }
        Some(builtin) if !builtin.takes(count) => {
            Err(format!("{} takes {}, not {count}", builtin.name, builtin.arity()))
        }
        _ => Ok(Command { function, arguments }),
    }
}
