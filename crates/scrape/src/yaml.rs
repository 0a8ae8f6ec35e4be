//! YAML as a tree that knows the place of every node, so that all errors of a file can be told at once and
//! with their lines.
//!
//! Memory is bounded: a node counts each time an alias repeats it ([`MAX_NODES`]), nesting has an end
//! ([`MAX_DEPTH`]).

use std::{collections::HashMap, fmt};

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Most nodes of a file, those behind aliases counted each time.
const MAX_NODES: usize = 1_000_000;

/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing, or `~` or `null` without quotes.
    Null,
    /// A text, a number or a truth value as it is written.
    Text(String),
    List(Vec<Node>),
    /// Names in the order of the file, unique.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What it is, for errors.
    pub(crate) fn what(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Nodes in it, itself included.
    fn nodes(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Text(_) => 0,
            Value::List(list) => list.iter().map(Self::nodes).sum(),
            Value::Map(pairs) => pairs.iter().map(|(name, value)| name.nodes() + value.nodes()).sum(),
        }
    }
}

/// What is wrong, and where.
pub(crate) type Fault = (Place, String);

/// The one document of `text`; nothing for an empty file.
pub(crate) fn read(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        let (event, place) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if document.is_some() => {
                return Err((place, "a second document begins; write one per file".into()));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(reader.node(event, place, 0)?),
        }
    }
    Ok(document.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Value::Null }))
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Place), Fault> {
        let place = |marker: &saphyr_parser::Marker| Place { line: marker.line(), column: marker.col() + 1 };
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, place(&span.start))),
            Some(Err(error)) => Err((place(error.marker()), error.info().to_owned())),
            None => Ok((Event::StreamEnd, Place::default())),
        }
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err((place, format!("the file has more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, place: Place, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err((place, format!("values are nested deeper than {MAX_DEPTH}")));
        }
        self.count(1, place)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (anchor, if null { Value::Null } else { Value::Text(text.into_owned()) })
            }
            Event::SequenceStart(anchor, _) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Value::Map(self.map(depth)?)),
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor) else {
                    return Err((place, "the alias names no value above it".into()));
                };
                let nodes = *nodes;
                let value = node.value.clone();
                self.count(nodes, place)?;
                return Ok(Node { place, value });
            }
            _ => return Err((place, "a value is expected".into())),
        };
        let node = Node { place, value };
        if anchor != 0 {
            let nodes = node.nodes();
            self.count(nodes, place)?;
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut list = Vec::new();
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::SequenceEnd => return Ok(list),
                event => list.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, Fault> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        loop {
            let (event, place) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(pairs);
            }
            let name = self.node(event, place, depth + 1)?;
            let Some(text) = name.text() else {
                return Err((place, format!("the name of a field is {}", name.what())));
            };
            if !names.insert(text.to_owned()) {
                return Err((place, format!("field {text:?} is given twice")));
            }
            let (event, place) = self.next()?;
            let value = self.node(event, place, depth + 1)?;
            pairs.push((name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_aliases_and_scalars() {
        let text = "a: &x [1, two, '3', ~]\nb:\n  - *x\n  - null\n  - 'null'\n";
        let node = read(text).unwrap();
        let Value::Map(pairs) = &node.value else { panic!("{node:?}") };
        assert_eq!(pairs[1].0.place, Place { line: 2, column: 1 });
        let Value::List(list) = &pairs[1].1.value else { panic!("{node:?}") };
        assert_eq!(list[0].place, Place { line: 3, column: 5 });
        let Value::List(alias) = &list[0].value else { panic!("{node:?}") };
        let texts: Vec<_> = alias.iter().map(Node::text).collect();
        assert_eq!(texts, [Some("1"), Some("two"), Some("3"), None]);
        assert!(list[1].text().is_none() && list[2].text() == Some("null"));
        assert!(matches!(read("# empty\n").unwrap().value, Value::Null));
    }

    #[test]
    fn broken_files_are_refused_with_their_place() {
        let fault = |text: &str| {
            let (place, reason) = read(text).unwrap_err();
            format!("{place} {reason}")
        };
        assert_eq!(fault("a: 1\nb: 2\na: 3\n"), "3:1 field \"a\" is given twice");
        assert_eq!(fault("a: 1\n---\nb: 2\n"), "2:1 a second document begins; write one per file");
        assert_eq!(fault("? [a]\n: 1\n"), "1:3 the name of a field is a list");
        assert!(fault("a: [1\nb: 2\n").starts_with("2:"), "{}", fault("a: [1\nb: 2\n"));
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(fault(&deep).contains("deeper than 64"), "{}", fault(&deep));
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs = format!("{laughs}a{level}: &a{level} [{list}]\n");
        }
        assert!(fault(&laughs).contains("more than 1000000 values"));
    }
}
