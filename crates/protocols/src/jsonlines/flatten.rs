//! The fields of one line, flattened. All memory is reused from line to line.

use std::ops::Range;

use super::fields::{FieldNames, Kind, Role};
use crate::{
    Limits,
    intake::{Fault, bad},
    json::{Json, Value},
};

/// A field's name: a slice of the line, or put together in [`Flat::names`].
#[derive(Debug, Clone)]
enum Name<'a> {
    Line(&'a str),
    Built(Range<usize>),
}

#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    name: Name<'a>,
    pub(super) value: Value<'a>,
    pub(super) role: Role,
    /// Position among the members.
    pub(super) index: usize,
}

#[derive(Default)]
pub(super) struct Flat<'a> {
    members: Vec<Member<'a>>,
    names: String,
    /// Best member of each kind: rank and index.
    best: [Option<(usize, usize)>; Kind::COUNT],
    /// Names and roles by position in the last lines: lines of one program look alike, so the role
    /// is mostly found by one comparison.
    seen: Vec<(String, Role)>,
}

impl<'a> Flat<'a> {
    /// Reads the object that is next.
    pub(super) fn read(
        &mut self,
        json: &mut Json<'a>,
        fields: &FieldNames,
        limits: &Limits,
    ) -> Result<(), Fault> {
        self.members.clear();
        self.names.clear();
        self.best = [None; Kind::COUNT];
        self.object(json, 0..0, fields, limits, limits.max_depth)
    }

    fn object(
        &mut self,
        json: &mut Json<'a>,
        prefix: Range<usize>,
        fields: &FieldNames,
        limits: &Limits,
        depth: usize,
    ) -> Result<(), Fault> {
        if depth == 0 {
            return Err(bad("the line is nested too deep; flatten it"));
        }
        json.object()?;
        let mut first = true;
        while let Some(key) = json.member(&mut first)? {
            let name = match key.as_plain() {
                Some(plain) if prefix.is_empty() => Name::Line(plain),
                _ => {
                    let start = self.names.len();
                    if !prefix.is_empty() {
                        self.names.extend_from_within(prefix.clone());
                        self.names.push('.');
                    }
                    key.pieces(|piece| self.names.push_str(piece));
                    if self.names.len() > limits.max_record_bytes {
                        return Err(bad("the names of nested fields are too long together; shorten them"));
                    }
                    Name::Built(start..self.names.len())
                }
            };
            if json.peek() == b'{' {
                let prefix = match name {
                    Name::Built(range) => range,
                    Name::Line(name) => {
                        let start = self.names.len();
                        self.names.push_str(name);
                        start..self.names.len()
                    }
                };
                self.object(json, prefix, fields, limits, depth - 1)?;
                continue;
            }
            let value = json.value()?;
            if !matches!(value, Value::Null) {
                self.push(name, value, fields, limits)?;
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        name: Name<'a>,
        value: Value<'a>,
        fields: &FieldNames,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let index = self.members.len();
        if index >= limits.max_attributes_per_record {
            let limit = limits.max_attributes_per_record;
            return Err(Fault::Record(format!("the line has more than {limit} fields; send fewer").into()));
        }
        let text = match &name {
            Name::Line(text) => text,
            Name::Built(range) => &self.names[range.clone()],
        };
        let role = match self.seen.get_mut(index) {
            Some((seen, role)) if seen == text => *role,
            Some((seen, role)) => {
                text.clone_into(seen);
                *role = fields.role(text);
                *role
            }
            None => {
                let role = fields.role(text);
                self.seen.push((text.to_owned(), role));
                role
            }
        };
        if let Some((kind, rank)) = role.kind {
            let best = &mut self.best[kind as usize];
            if best.is_none_or(|(known, _)| rank < known) {
                *best = Some((rank, index));
            }
        }
        self.members.push(Member { name, value, role, index });
        Ok(())
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter()
    }

    pub(super) fn best(&self, kind: Kind) -> Option<&Member<'a>> {
        self.best[kind as usize].map(|(_, index)| &self.members[index])
    }

    pub(super) fn name<'s>(&'s self, member: &'s Member<'a>) -> &'s str {
        match &member.name {
            Name::Line(text) => text,
            Name::Built(range) => &self.names[range.clone()],
        }
    }
}
