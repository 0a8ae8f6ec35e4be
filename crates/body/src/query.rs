//! What to look for, and what can be said without looking at rows.
//!
//! A needle is held against each template of a segment at most once, when rows of it come into question:
//! a segment has thousands, a question that knows service and time meets a few. It lies in the constant text
//! ([`Plan::Always`]), or it fits into single slots, judged by the bytes that a slot ever held
//! ([`Plan::Slots`]), or it may cross the border of text and variable ([`Plan::Rebuild`]), or it
//! cannot occur ([`Plan::Never`]). A regular expression goes by the literals it cannot do without.

use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;

use crate::{
    BlockIndex, BodyError, Dictionary,
    dictionary::{Slot, class},
    literals::required,
    miner::MARK,
};

/// Largest compiled regular expression, in bytes.
const MAX_REGEX_BYTES: usize = 10 << 20;
/// Steps after which a needle counts as fitting a template.
const MAX_STEPS: usize = 4096;

/// What is known about the rows of a template or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every row matches.
    Always,
    /// No row matches.
    Never,
    /// Rows must be looked at.
    Maybe,
}

/// How the rows of a template are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    Always,
    Never,
    /// The needle can only lie inside one of these slots (one bit each, see [`bit_of`]).
    Slots(u64),
    Rebuild,
}

/// Bit of a slot in [`Plan::Slots`]; the last bit stands for all slots from there on.
#[inline]
pub(crate) fn bit_of(slot: u32) -> u64 {
    1 << slot.min(63)
}

/// A run of letters and digits that a variable must hold.
#[derive(Debug, Clone)]
struct Run {
    bytes: Vec<u8>,
    /// Whether the needle shows that the run starts or ends here.
    left: bool,
    right: bool,
}

/// A text that must occur.
#[derive(Debug, Clone)]
pub(crate) struct Literal {
    pub(crate) finder: Finder<'static>,
    /// Runs with a digit: constant text has none, so a variable must hold them.
    runs: Vec<Run>,
    /// The literal when it is one run without a digit: a variable must hold it where constant text
    /// does not.
    word: Option<Run>,
    pub(crate) classes: u16,
    /// Bytes of the literal: text at the border of a variable that has none of them ends no hit.
    bytes: Bytes,
}

/// A set of bytes.
#[derive(Debug, Clone, Default)]
struct Bytes([u64; 4]);

impl Bytes {
    fn of(text: &[u8]) -> Self {
        let mut set = Self::default();
        text.iter().for_each(|byte| set.0[usize::from(byte >> 6)] |= 1 << (byte & 63));
        set
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// The set by the low six bits of its bytes, as [`Dictionary::borders`] has it.
    fn folded(&self) -> u64 {
        self.0.iter().fold(0, |all, part| all | part)
    }
}

#[derive(Debug)]
struct Inner {
    /// One of these must occur; nothing when that is not known.
    literals: Option<Vec<Literal>>,
    /// Nothing when the one literal is all that is asked for.
    regex: Option<regex::bytes::Regex>,
}

/// A substring or a regular expression to find in lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Query(Arc<Inner>);

impl Query {
    /// Lines that contain these bytes, case-sensitive.
    pub fn literal(needle: &[u8]) -> Self {
        Self(Arc::new(Inner { literals: Some(vec![Literal::new(needle)]), regex: None }))
    }

    /// Lines in which the regular expression matches somewhere; syntax and flags of the `regex` crate.
    pub fn regex(pattern: &str) -> Result<Self, BodyError> {
        let refuse = |error: String| BodyError::Regex(error);
        let hir = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern);
        let hir = hir.map_err(|error| refuse(error.to_string()))?;
        let regex = regex::bytes::RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build();
        let regex = regex.map_err(|error| refuse(error.to_string()))?;
        let literals = required(&hir).map(|all| all.iter().map(|one| Literal::new(one)).collect());
        Ok(Self(Arc::new(Inner { literals, regex: Some(regex) })))
    }

    /// Whether a plain line matches.
    pub fn matches(&self, line: &[u8]) -> bool {
        match (&self.0.regex, &self.0.literals) {
            (Some(regex), _) => regex.is_match(line),
            (None, Some(literals)) => literals.iter().any(|literal| literal.finder.find(line).is_some()),
            (None, None) => true,
        }
    }

    /// Takes the query to the templates of one segment.
    pub fn prepare(&self, dictionary: &Arc<Dictionary>) -> PreparedQuery {
        let plans = vec![OnceLock::new(); dictionary.len()];
        let (query, dictionary) = (self.clone(), dictionary.clone());
        PreparedQuery { query, dictionary, plans, only_inside: OnceLock::new() }
    }

    fn classify(&self, dictionary: &Dictionary, id: u32) -> Plan {
        let template = Template::of(dictionary, id);
        let Template { pieces, slots, .. } = template;
        if let (Some(regex), []) = (&self.0.regex, slots) {
            let matches = regex.is_match(dictionary.piece(pieces[0]));
            return if matches { Plan::Always } else { Plan::Never };
        }
        let Some(literals) = &self.0.literals else { return Plan::Rebuild };
        let mut plan = Plan::Never;
        for literal in literals {
            plan = match (plan, template.plan(literal)) {
                (_, Plan::Never) => plan,
                (_, found) if self.0.regex.is_none() => found,
                (Plan::Never, Plan::Slots(slots)) => Plan::Slots(slots),
                (Plan::Slots(others), Plan::Slots(slots)) => Plan::Slots(others | slots),
                // Even a literal in constant text does not make the expression match.
                _ => return Plan::Rebuild,
            };
        }
        plan
    }
}

impl Literal {
    fn new(needle: &[u8]) -> Self {
        let classes = needle.iter().fold(0, |all, &byte| all | class::OF[byte as usize]);
        let (mut runs, mut word) = (Vec::new(), None);
        let mut at = 0;
        for part in needle.split(|byte| !byte.is_ascii_alphanumeric()) {
            let (left, right) = (at > 0, at + part.len() < needle.len());
            let run = || Run { bytes: part.to_vec(), left, right };
            if part.iter().any(u8::is_ascii_digit) {
                runs.push(run());
            } else if !part.is_empty() && part.len() == needle.len() {
                word = Some(run());
            }
            at += part.len() + 1;
        }
        Self { finder: Finder::new(needle).into_owned(), runs, word, classes, bytes: Bytes::of(needle) }
    }

    /// `inside`: whether only variables of the block may hold the literal.
    fn may_be_in(&self, index: &BlockIndex, inside: bool) -> bool {
        let word = self.word.iter().filter(|_| inside);
        self.runs.iter().chain(word).all(|run| index.may_hold(&run.bytes, run.left, run.right))
    }
}

/// One template while a needle is held against it.
#[derive(Clone, Copy)]
struct Template<'a> {
    dictionary: &'a Dictionary,
    id: u32,
    pieces: &'a [(u32, u32)],
    slots: &'a [Slot],
}

impl<'a> Template<'a> {
    /// `id` must be one of the dictionary's.
    fn of(dictionary: &'a Dictionary, id: u32) -> Self {
        let pieces = dictionary.pieces_of(id).expect("BUG: the dictionary has the template");
        Self { dictionary, id, pieces, slots: dictionary.slots_of(id) }
    }

    fn piece(&self, i: usize) -> &[u8] {
        self.dictionary.piece(self.pieces[i])
    }

    fn plan(&self, literal: &Literal) -> Plan {
        let needle = literal.finder.needle();
        if self.is_constant(literal) {
            return Plan::Always;
        }
        let mut inside = 0u64;
        for (i, slot) in self.slots.iter().enumerate() {
            if literal.classes & !slot.classes == 0 && slot.longest as usize >= needle.len() {
                inside |= bit_of(i as u32);
            }
        }
        if self.crosses(literal) {
            Plan::Rebuild
        } else if inside != 0 {
            Plan::Slots(inside)
        } else {
            Plan::Never
        }
    }

    /// Whether the constant text holds the literal.
    fn is_constant(&self, literal: &Literal) -> bool {
        let needle = literal.finder.needle();
        if literal.bytes.has(MARK) {
            return (0..self.pieces.len()).any(|i| literal.finder.find(self.piece(i)).is_some());
        }
        // Marks stand between the pieces, so no hit goes across them.
        let text = self.dictionary.text_of(self.id);
        text.len() >= needle.len() && literal.finder.find(text).is_some()
    }

    /// Whether the needle may lie across a border of text and variable. Errs towards yes.
    fn crosses(&self, literal: &Literal) -> bool {
        let needle = literal.finder.needle();
        let mut steps = 0;
        for slot in 0..self.slots.len() {
            let (before, after) = (self.piece(slot), self.piece(slot + 1));
            let may_end = before.last().is_some_and(|byte| literal.bytes.has(*byte));
            let most = if may_end { before.len().min(needle.len() - 1) } else { 0 };
            // The needle starts in the text before the slot …
            for len in 1..=most {
                if before[before.len() - len] == needle[0]
                    && before[before.len() - len..] == needle[..len]
                    && self.slot_takes(slot, &needle[len..], &mut steps)
                {
                    return true;
                }
            }
            // … or in the slot, and goes on in the text after it.
            if after.first().is_some_and(|byte| !literal.bytes.has(*byte)) {
                continue;
            }
            for len in 1..=self.prefix_for(slot, needle).min(needle.len() - 1) {
                if self.piece_takes(slot + 1, &needle[len..], &mut steps) {
                    return true;
                }
            }
        }
        false
    }

    /// How many bytes at the start of `rest` the slot may hold.
    fn prefix_for(&self, slot: usize, rest: &[u8]) -> usize {
        let Slot { classes, longest } = self.slots[slot];
        let fits = rest.iter().take_while(|&&byte| class::OF[byte as usize] & classes != 0).count();
        fits.min(longest as usize)
    }

    /// Whether `rest` may start where the slot starts.
    fn slot_takes(&self, slot: usize, rest: &[u8], steps: &mut usize) -> bool {
        *steps += 1;
        let fits = self.prefix_for(slot, rest);
        *steps > MAX_STEPS
            || fits == rest.len()
            || (0..=fits).any(|len| self.piece_takes(slot + 1, &rest[len..], steps))
    }

    /// Whether `rest` may start where the piece of text starts.
    fn piece_takes(&self, piece: usize, rest: &[u8], steps: &mut usize) -> bool {
        let text = self.piece(piece);
        if text.len() >= rest.len() {
            return text.starts_with(rest);
        }
        piece < self.slots.len()
            && rest.starts_with(text)
            && self.slot_takes(piece, &rest[text.len()..], steps)
    }
}

/// A [`Query`] against the dictionary of one segment.
#[derive(Debug)]
pub struct PreparedQuery {
    query: Query,
    dictionary: Arc<Dictionary>,
    /// By template, found when first asked for.
    plans: Vec<OnceLock<Plan>>,
    only_inside: OnceLock<bool>,
}

impl PreparedQuery {
    /// Whether a plain line matches.
    #[inline]
    pub fn matches(&self, line: &[u8]) -> bool {
        self.query.matches(line)
    }

    /// What the template alone says about its rows.
    pub fn template(&self, id: u32) -> Verdict {
        match self.plan(id) {
            Plan::Always => Verdict::Always,
            Plan::Never => Verdict::Never,
            Plan::Slots(_) | Plan::Rebuild => Verdict::Maybe,
        }
    }

    /// What the index says about the rows of a block (encoded or plain).
    pub fn block(&self, index: &BlockIndex) -> Verdict {
        // Constant text has no digits, so a literal with digits needs no look at the templates; nor does a
        // word that no template has in its text.
        if self.literals().is_some()
            && (!self.may_be_in(index, false) || !self.may_be_in(index, true) && self.only_inside())
        {
            return Verdict::Never;
        }
        let (mut always, mut some_always, mut some_maybe, mut inside) = (true, false, false, true);
        for &(template, _) in &index.templates {
            let plan = self.plan(template);
            always &= plan == Plan::Always;
            some_always |= plan == Plan::Always;
            some_maybe |= matches!(plan, Plan::Slots(_) | Plan::Rebuild);
            inside &= plan != Plan::Rebuild;
        }
        if always {
            Verdict::Always
        } else if some_always || some_maybe && self.may_be_in(index, inside) {
            Verdict::Maybe
        } else {
            Verdict::Never
        }
    }

    /// Whether no template holds a literal in its text or across the border of text and variable, so that
    /// only variables can. May say no where it could say yes.
    fn only_inside(&self) -> bool {
        *self.only_inside.get_or_init(|| {
            self.literals().is_some_and(|literals| {
                literals.iter().all(|literal| {
                    let set = literal.bytes.folded();
                    let apart = |(id, borders): (usize, &u64)| {
                        borders & set == 0 || !Template::of(&self.dictionary, id as u32).crosses(literal)
                    };
                    literal.finder.find(&self.dictionary.text).is_none()
                        && self.dictionary.borders().iter().enumerate().all(apart)
                })
            })
        })
    }

    fn may_be_in(&self, index: &BlockIndex, inside: bool) -> bool {
        self.literals().is_none_or(|literals| literals.iter().any(|literal| literal.may_be_in(index, inside)))
    }

    pub(crate) fn plan(&self, id: u32) -> Plan {
        let Some(plan) = self.plans.get(id as usize) else { return Plan::Rebuild };
        *plan.get_or_init(|| self.query.classify(&self.dictionary, id))
    }

    /// Texts of which a matching line holds at least one, when that is known.
    pub(crate) fn literals(&self) -> Option<&[Literal]> {
        self.query.0.literals.as_deref()
    }

    /// Whether holding a literal is not enough.
    pub(crate) fn must_verify(&self) -> bool {
        self.query.0.regex.is_some()
    }
}
