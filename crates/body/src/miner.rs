//! From a line to its template and variables.
//!
//! The fast way is one hash look-up: the line with each variable replaced by [`MARK`] is the *key*.
//! A key seen for the first time goes the slow way: as long as few keys look alike it becomes a
//! template as it is; when many keys differ only in some words (user names, host names), those
//! words become variables too, after Drain (He et al., ICWS 2017). Templates handed out stay valid.
//! [`RAW`] is the template that takes any line as one variable; it serves lines past the bounds.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::{HashMap, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    dictionary::slots_of,
    scan::{Masks, is_token_byte},
    values::{self, Span},
};

/// Stands for a variable in the text of a template. A NUL of a line is always inside a variable.
pub(crate) const MARK: u8 = 0;
/// Template id of the template that is one variable and nothing else.
pub(crate) const RAW: u32 = 0;
/// Longest line that is cut into variables, in bytes.
const MAX_LINE_BYTES: usize = 32 * 1024;
/// Longest text of a template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 4 * 1024;
/// Most variables of a template.
pub(crate) const MAX_SLOTS: usize = 240;
/// Most bytes that all template texts (and all remembered keys) of a segment may take.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Keys remembered per allowed template; other keys go the slow way each time.
const KEYS_PER_TEMPLATE: usize = 4;
/// Bytes copied at once when a key is put together.
const PIECE: usize = values::CHUNK;
/// Keys that may look alike before words become variables.
const ALIKE: u32 = 8;
/// Different words seen at one position that make it a variable.
const VARYING: usize = 4;
/// Groups kept per arrangement of words and delimiters.
const MAX_GROUPS: usize = 32;

/// Text pieces laid end to end.
#[derive(Default)]
struct Texts {
    text: values::Text,
    spans: Vec<Span>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) -> u32 {
        self.spans.push(self.text.push(text));
        self.spans.len() as u32 - 1
    }

    fn get(&self, i: u32) -> &[u8] {
        values::slice(self.text.padded(), self.spans[i as usize])
    }
}

/// What a key resolves to.
#[derive(Clone, Default)]
struct Resolved {
    template: u32,
    /// Words of the key (start, end) that are variables beside the marks.
    words: Box<[Span]>,
}

/// Keys that share their arrangement and most of their words.
struct Group {
    members: u32,
    /// Words seen per position; a position with [`VARYING`] words varies.
    words: Vec<Vec<Box<[u8]>>>,
}

/// Lines of one block and where their variables lie.
#[derive(Default)]
pub(crate) struct Variables {
    pub(crate) text: values::Text,
    /// Line by line.
    pub(crate) spans: Vec<Span>,
}

impl Variables {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }
}

/// Learns templates; ids are handed out in order of appearance.
pub(crate) struct Miner {
    max_templates: usize,
    masks: Masks,
    /// The line's key, with room behind it.
    key: Vec<u8>,
    keys: Texts,
    resolved: Vec<Resolved>,
    by_key: HashTable<(u64, u32)>,
    templates: Texts,
    by_text: HashTable<(u64, u32)>,
    groups: HashMap<u64, Vec<Group>>,
    hasher: RandomState,
}

impl Miner {
    pub(crate) fn new(max_templates: usize) -> Self {
        let mut miner = Self {
            max_templates: max_templates.max(1),
            masks: Masks::default(),
            key: vec![0; MAX_TEMPLATE_BYTES + 3 * PIECE],
            keys: Texts::default(),
            resolved: Vec::new(),
            by_key: HashTable::new(),
            templates: Texts::default(),
            by_text: HashTable::new(),
            groups: HashMap::new(),
            hasher: RandomState::new(),
        };
        let raw = miner.template_of(&[MARK]);
        debug_assert_eq!(raw, RAW);
        miner
    }

    pub(crate) fn len(&self) -> usize {
        self.templates.spans.len()
    }

    /// Text of a template, with [`MARK`] for each variable.
    pub(crate) fn text(&self, id: u32) -> &[u8] {
        self.templates.get(id)
    }

    /// Template of the line; line and variables are appended to `variables`.
    pub(crate) fn line(&mut self, line: &[u8], variables: &mut Variables) -> u32 {
        let place = variables.text.push(line);
        let spans = &mut variables.spans;
        let before = spans.len();
        if line.len() > MAX_LINE_BYTES {
            spans.push(place);
            return RAW;
        }
        let text = variables.text.padded();
        self.masks.variables(text, place.0 as usize, line.len(), spans);
        let shown = &spans[before..];
        let constant = line.len() - shown.iter().map(|span| (span.1 - span.0) as usize - 1).sum::<usize>();
        if shown.len() > MAX_SLOTS || constant > MAX_TEMPLATE_BYTES {
            spans.truncate(before);
            spans.push(place);
            return RAW;
        }
        let mut end = (0, place.0);
        for &(start, stop) in shown {
            end = self.put_piece(text, end, start);
            self.key[end.0] = MARK;
            end = (end.0 + 1, stop);
        }
        self.put_piece(text, end, place.1);
        self.key[constant..constant + PIECE].fill(0);
        let hash = values::hash_chunks(&self.key.as_chunks().0[..constant.div_ceil(PIECE)], constant);
        let key = &self.key[..constant];
        let known =
            self.by_key.find(hash, |&(other, i)| other == hash && self.keys.get(i) == key).map(|&(_, i)| i);
        if let Some(i) = known {
            let resolved = &self.resolved[i as usize];
            if !resolved.words.is_empty() || resolved.template == RAW {
                put_words(place, before, resolved, spans);
            }
            return resolved.template;
        }
        let key = key.to_vec();
        let resolved = self.learn(&key);
        put_words(place, before, &resolved, spans);
        let template = resolved.template;
        if self.resolved.len() < self.max_templates.saturating_mul(KEYS_PER_TEMPLATE)
            && self.keys.text.len() < MAX_TEXT_BYTES
        {
            let i = self.keys.push(&key);
            self.resolved.push(resolved);
            self.by_key.insert_unique(hash, (hash, i), |&(hash, _)| hash);
        }
        template
    }

    /// Puts `text[from..to]` into the key at `at`, both given by `(at, from)`; the same for what follows.
    #[inline]
    fn put_piece(&mut self, text: &[u8], (at, from): (usize, u32), to: u32) -> (usize, u32) {
        let (from, len) = (from as usize, (to - from) as usize);
        // Whole chunks, whose surplus the next piece overwrites, are moves instead of a call.
        self.key[at..at + PIECE].copy_from_slice(&text[from..from + PIECE]);
        let mut done = PIECE;
        while done < len {
            let chunk = &text[from + done..from + done + PIECE];
            self.key[at + done..at + done + PIECE].copy_from_slice(chunk);
            done += PIECE;
        }
        (at + len, to)
    }

    /// Decides what the new key resolves to.
    fn learn(&mut self, key: &[u8]) -> Resolved {
        let words = words_of(key);
        let varying = self.varying_words(key, &words);
        let mut text = Vec::with_capacity(key.len());
        let mut at = 0usize;
        for &(start, end) in &varying {
            text.extend_from_slice(&key[at..start as usize]);
            text.push(MARK);
            at = end as usize;
        }
        text.extend_from_slice(&key[at..]);
        let slots = slots_of(&text);
        let template = if slots > MAX_SLOTS { RAW } else { self.template_of(&text) };
        let words = if template == RAW { Box::default() } else { varying.into() };
        Resolved { template, words }
    }

    /// Joins the key to a group; which of its words are variables there.
    fn varying_words(&mut self, key: &[u8], words: &[Span]) -> Vec<Span> {
        if words.len() < 2 {
            return Vec::new();
        }
        let arrangement = self.hasher.hash_one(Arrangement { key, words });
        let groups = self.groups.entry(arrangement).or_default();
        let word = |i: usize| &key[words[i].0 as usize..words[i].1 as usize];
        let alike = |group: &Group| {
            let mut same = 0;
            for (i, seen) in group.words.iter().enumerate() {
                same += usize::from(seen.iter().any(|other| **other == *word(i)));
            }
            same
        };
        let best = groups
            .iter_mut()
            .filter(|group| group.words.len() == words.len())
            .map(|group| (alike(group), group))
            .max_by_key(|(same, _)| *same)
            .filter(|(same, _)| same * 2 >= words.len());
        let Some((_, group)) = best else {
            if groups.len() < MAX_GROUPS {
                let words = (0..words.len()).map(|i| vec![word(i).into()]).collect();
                groups.push(Group { members: 1, words });
            }
            return Vec::new();
        };
        group.members += 1;
        let mut varying = Vec::new();
        for (i, seen) in group.words.iter_mut().enumerate() {
            if seen.len() < VARYING && !seen.iter().any(|other| **other == *word(i)) {
                seen.push(word(i).into());
            }
            if seen.len() >= VARYING {
                varying.push(words[i]);
            }
        }
        if group.members <= ALIKE { Vec::new() } else { varying }
    }

    /// Id of the template with this text, a new one if need be; [`RAW`] when there are too many.
    fn template_of(&mut self, text: &[u8]) -> u32 {
        let hash = xxh3_64(text);
        let known = self.by_text.find(hash, |&(other, i)| other == hash && self.templates.get(i) == text);
        if let Some(&(_, i)) = known {
            return i;
        }
        if self.len() >= self.max_templates || self.templates.text.len() + text.len() > MAX_TEXT_BYTES {
            return RAW;
        }
        let i = self.templates.push(text);
        self.by_text.insert_unique(hash, (hash, i), |&(hash, _)| hash);
        i
    }
}

/// Key with its words left out.
struct Arrangement<'a> {
    key: &'a [u8],
    words: &'a [Span],
}

impl std::hash::Hash for Arrangement<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let mut at = 0usize;
        for &(start, end) in self.words {
            state.write(&self.key[at..start as usize]);
            state.write_u8(0xff);
            at = end as usize;
        }
        state.write(&self.key[at..]);
    }
}

/// Words of a key: maximal runs of token bytes other than the mark, with a letter in them.
fn words_of(key: &[u8]) -> Vec<Span> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < key.len() {
        let start = at;
        let mut letter = false;
        while at < key.len() && key[at] != MARK && is_token_byte(key[at]) {
            letter |= key[at].is_ascii_alphabetic() || key[at] >= 0x80;
            at += 1;
        }
        let beside_mark = start > 0 && key[start - 1] == MARK || key.get(at) == Some(&MARK);
        if letter && !beside_mark {
            words.push((start as u32, at as u32));
        }
        at += usize::from(at == start || at < key.len());
    }
    words
}

/// Replaces `spans[from..]`, the variables that the line at `place` shows by itself, by those of its template,
/// when some words are variables too or the line is raw.
fn put_words(place: Span, from: usize, resolved: &Resolved, spans: &mut Vec<Span>) {
    if resolved.template == RAW {
        spans.truncate(from);
        spans.push(place);
        return;
    }
    if resolved.words.is_empty() {
        return;
    }
    let shown = spans.split_off(from);
    // A position in the key lies `shift` bytes further in the text once `mark` marks are passed.
    let (mut mark, mut shift) = (0usize, i64::from(place.0));
    for &(start, end) in &*resolved.words {
        while let Some(&(s, e)) = shown.get(mark).filter(|span| i64::from(span.0) < i64::from(start) + shift)
        {
            spans.push((s, e));
            shift += i64::from(e - s) - 1;
            mark += 1;
        }
        spans.push(((i64::from(start) + shift) as u32, (i64::from(end) + shift) as u32));
    }
    spans.extend_from_slice(&shown[mark..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Template text and variables put together again.
    fn rebuilt(miner: &Miner, template: u32, variables: &Variables) -> Vec<u8> {
        let mut values = variables.spans.iter().map(|&span| values::slice(variables.text.padded(), span));
        let mut line = Vec::new();
        for &byte in miner.text(template) {
            if byte == MARK { line.extend_from_slice(values.next().unwrap()) } else { line.push(byte) }
        }
        assert!(values.next().is_none());
        line
    }

    fn check(miner: &mut Miner, line: &[u8]) -> u32 {
        let mut variables = Variables::default();
        let id = miner.line(line, &mut variables);
        assert_eq!(rebuilt(miner, id, &variables), line, "{}", String::from_utf8_lossy(line));
        id
    }

    #[test]
    fn words_that_vary_become_variables_and_the_others_stay() {
        let mut miner = Miner::new(1000);
        let names: Vec<String> = (0..26u8)
            .flat_map(|a| (0..20u8).map(move |b| format!("u{}{}", (b'a' + a) as char, (b'a' + b) as char)))
            .collect();
        for _ in 0..2 {
            for (i, name) in names.iter().enumerate() {
                check(&mut miner, format!("[{i}] session opened for user {name} by (uid={i}) ok").as_bytes());
            }
        }
        assert!(miner.len() < 20, "{} templates", miner.len());
        let last = check(&mut miner, b"[5] session opened for user zzz by (uid=0) ok");
        assert_eq!(miner.text(last), b"[\0] session opened for user \0 by (uid=\0) ok");
    }

    #[test]
    fn lines_past_a_bound_are_one_variable() {
        let mut miner = Miner::new(3);
        for line in ["a", "b 1", "c", "d", "", "\0", "e 1\0\0 f"] {
            check(&mut miner, line.as_bytes());
        }
        assert!(miner.len() <= 3);
        assert_eq!(check(&mut miner, b"new"), RAW);
        let mut miner = Miner::new(100);
        assert_eq!(check(&mut miner, &vec![b'a'; 1 << 20]), RAW);
        assert_eq!(check(&mut miner, "1 ".repeat(300).as_bytes()), RAW);
        assert_eq!(check(&mut miner, "a ".repeat(3000).as_bytes()), RAW);
    }
}
