//! One system's source lines as templates with typed variables.
//!
//! Every line is cut into literal text, timestamps and variables (numbers, hex, UUIDs, IP addresses).
//! Lines with the same literals share a template; a *slot* is one variable position of a template and
//! knows the values it took in the source. From those the slot's behaviour follows: a slot with few
//! values keeps the source's own (status codes, versions, node names), one with many gets fresh ones
//! in one of the ways real variables behave. Decided once per slot, so a process id stays a process id.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;
use trine_model::{Level, Severity};

use crate::rng::mix;

/// What stands at a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Decimal digits.
    Int,
    /// Digits, a dot, digits.
    Float,
    /// Lower-case hex digits of both sorts, at least six.
    Hex,
    /// An IPv4 address.
    Ip,
    /// Hex digits in groups of 8-4-4-4-12.
    Uuid,
}

/// How fresh values of a slot are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// The source's own value.
    Keep,
    /// Any value the slot took in the source, the frequent ones frequently.
    Observed,
    /// The same for a whole session of a stream: process ids, request ids.
    Session,
    /// Rises in each stream: sequence numbers, task ids.
    Counter,
    /// Near an observed value: sizes, durations.
    Near,
    /// Digits never seen before.
    Fresh,
    /// From a pool of recently used ones of the system: block ids, client addresses.
    Pool,
}

/// One part of a source line; ranges are bytes of its text.
#[derive(Debug, Clone, Copy)]
pub enum Piece {
    /// Text that stays.
    Literal(usize, usize),
    /// A timestamp in this format, rewritten to the record's time.
    Time(&'static str),
    /// A variable: slot index, its text.
    Var(usize, usize, usize),
    /// The same text as the variable piece with this index in the same line.
    Copy(usize),
}

/// One variable position of a template.
#[derive(Debug)]
pub struct Slot {
    /// What stands there.
    pub kind: Kind,
    /// How fresh values are drawn.
    pub behaviour: Behaviour,
    /// Position among the variables of the line; equal places of different templates share sessions.
    pub ordinal: usize,
    /// Values of the source in order of appearance, at most [`MAX_VALUES`].
    pub values: Vec<String>,
}

/// Bound on the observed values a slot remembers.
const MAX_VALUES: usize = 256;

/// One line of the source.
#[derive(Debug)]
pub struct SourceLine {
    /// The line as it is.
    pub text: String,
    /// The line cut up.
    pub pieces: Vec<Piece>,
    /// Level named in the line, [`Level::Info`] when it names none.
    pub level: Level,
}

/// All lines of one system.
#[derive(Debug)]
pub struct System {
    /// Lower-case name, `openssh`.
    pub name: String,
    /// Lines in the order of the source.
    pub lines: Vec<SourceLine>,
    /// Slots the lines refer to.
    pub slots: Vec<Slot>,
}

enum Found {
    Keep,
    Time(&'static str),
    Var(Kind),
}

const DAY: &str = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)";
const MONTH: &str = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)";

/// What is cut out of a line, the first that fits wins.
static PATTERNS: LazyLock<(Regex, Vec<Found>)> = LazyLock::new(|| {
    let table: Vec<(String, Found)> = vec![
        // Names of rotated files hold the time of the rotation, not of the line.
        (r"nova-[a-z]+\.log[0-9._:-]*[0-9]".into(), Found::Keep),
        (r"#{4}-##-## ##:##:##,###".into(), Found::Time("%Y-%m-%d %H:%M:%S,%3")),
        (r"#{4}-##-## ##:##:##\.###".into(), Found::Time("%Y-%m-%d %H:%M:%S.%3")),
        (r"#{4}-##-## ##:##:##".into(), Found::Time("%Y-%m-%d %H:%M:%S")),
        (r"#{4}-##-##-##\.##\.##\.#{6}".into(), Found::Time("%Y-%m-%d-%H.%M.%S.%6")),
        (r"\b20##\.##\.##\b".into(), Found::Time("%Y.%m.%d")),
        (r"\b1[01]#{8}\b".into(), Found::Time("%s")),
        (r"\b##/##/## ##:##:##\b".into(), Found::Time("%y/%m/%d %H:%M:%S")),
        (r"^#{6} #{6}\b".into(), Found::Time("%y%m%d %H%M%S")),
        (format!(r"\b{DAY} {MONTH}  # ##:##:## #{{4}}\b"), Found::Time("%a %b %e %H:%M:%S %Y")),
        (format!(r"\b{DAY} {MONTH} ## ##:##:## #{{4}}\b"), Found::Time("%a %b %d %H:%M:%S %Y")),
        (format!(r"\b{MONTH}  # ##:##:##\b"), Found::Time("%b %e %H:%M:%S")),
        (format!(r"\b{MONTH} #{{1,2}} ##:##:##\b"), Found::Time("%b %D %H:%M:%S")),
        (r"^##-## ##:##:##\.###".into(), Found::Time("%m-%d %H:%M:%S.%3")),
        (r"^#{8}-#{1,2}:#{1,2}:#{1,2}:#{1,3}".into(), Found::Time("%Y%m%d-%k:%N:%n:%f")),
        (r"^\[##\.## ##:##:##\]".into(), Found::Time("[%m.%d %H:%M:%S]")),
        (r"\b##:##:##\b".into(), Found::Time("%H:%M:%S")),
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b".into(), Found::Var(Kind::Uuid)),
        (r"\b#{1,3}\.#{1,3}\.#{1,3}\.#{1,3}\b".into(), Found::Var(Kind::Ip)),
        (r"\b#+\.#+\b".into(), Found::Var(Kind::Float)),
        (r"\b(?:0x)?[0-9a-f]{6,}\b".into(), Found::Var(Kind::Hex)),
        (r"#+".into(), Found::Var(Kind::Int)),
    ];
    let alternatives: Vec<String> =
        table.iter().map(|(p, _)| format!("({})", p.replace('#', "[0-9]"))).collect();
    let regex = Regex::new(&alternatives.join("|")).expect("bug: the patterns are fixed and valid");
    (regex, table.into_iter().map(|(_, found)| found).collect())
});

static LEVEL_WORD: LazyLock<Regex> = LazyLock::new(|| {
    // Android's one letter stands behind two process ids.
    Regex::new(
        r"^[0-9.: -]+ [0-9]+ +[0-9]+ ([VDIWEF]) |(?i:\b(trace|debug|info|notice|warn|warning|error|severe|fatal|critical)\b)",
    )
    .expect("bug: the pattern is fixed and valid")
});

/// The level a line names, [`Level::Info`] when it names none.
pub fn level_of(line: &str) -> Level {
    LEVEL_WORD
        .captures(line)
        .and_then(|found| found.get(1).or(found.get(2)))
        .and_then(|word| Severity::from_text(word.as_str()))
        .map_or(Level::Info, Severity::level)
}

impl System {
    /// Cuts up the lines of a file.
    pub fn new(name: &str, text: &str) -> Self {
        let mut slots: Vec<Slot> = Vec::new();
        let mut counts: Vec<usize> = Vec::new();
        // Template (its literals and kinds) to its slots.
        let mut templates: HashMap<String, Vec<usize>> = HashMap::new();
        let mut lines = Vec::new();
        for line in text.lines().map(|l| l.trim_end_matches('\r')).filter(|l| !l.is_empty()) {
            let (key, cuts) = cut(line);
            let of_line = templates.entry(key).or_insert_with(|| {
                let vars =
                    cuts.iter().filter_map(|c| if let Found::Var(kind) = c.2 { Some(kind) } else { None });
                vars.enumerate()
                    .map(|(ordinal, kind)| {
                        slots.push(Slot { kind, behaviour: Behaviour::Keep, ordinal, values: Vec::new() });
                        counts.push(0);
                        slots.len() - 1
                    })
                    .collect()
            });
            let pieces = pieces(line, &cuts, of_line);
            for piece in &pieces {
                if let Piece::Var(slot, start, end) = *piece {
                    counts[slot] += 1;
                    if slots[slot].values.len() < MAX_VALUES {
                        slots[slot].values.push(line[start..end].to_owned());
                    }
                }
            }
            lines.push(SourceLine { text: line.to_owned(), pieces, level: level_of(line) });
        }
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.behaviour = behaviour(slot, mix(index as u64 ^ name.len() as u64));
        }
        Self { name: name.to_owned(), lines, slots }
    }
}

type Cut = (usize, usize, Found);

/// Cuts of a line and the key of its template.
fn cut(line: &str) -> (String, Vec<Cut>) {
    let (regex, table) = &*PATTERNS;
    let (mut key, mut cuts, mut at) = (String::new(), Vec::new(), 0);
    for found in regex.captures_iter(line) {
        let whole = found.get(0).expect("group 0 is the match");
        let index = (1..found.len()).find(|i| found.get(*i).is_some()).expect("one alternative matched");
        let text = whole.as_str();
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let what = match &table[index - 1] {
            Found::Keep => Found::Keep,
            Found::Time(format) => Found::Time(format),
            // A word such as "added" is no number; digits alone are decimal.
            Found::Var(Kind::Hex) if digits == 0 => Found::Keep,
            Found::Var(Kind::Hex) if digits == text.len() => Found::Var(Kind::Int),
            Found::Var(kind) => Found::Var(*kind),
        };
        if matches!(what, Found::Keep) {
            continue;
        }
        key.push_str(&line[at..whole.start()]);
        match what {
            Found::Var(kind) => {
                key.push('\u{1}');
                key.push(char::from(b'a' + kind as u8));
            }
            _ => key.push('\u{2}'),
        }
        at = whole.end();
        cuts.push((whole.start(), whole.end(), what));
    }
    key.push_str(&line[at..]);
    (key, cuts)
}

fn pieces(line: &str, cuts: &[Cut], slots: &[usize]) -> Vec<Piece> {
    /// Shorter repeats ("1 of 1") are chance.
    const MIN_COPY_LEN: usize = 3;
    let mut out: Vec<Piece> = Vec::with_capacity(cuts.len() * 2 + 1);
    let (mut at, mut next_slot) = (0, 0);
    for (start, end, what) in cuts {
        let (start, end) = (*start, *end);
        if at < start {
            out.push(Piece::Literal(at, start));
        }
        match what {
            Found::Time(format) => out.push(Piece::Time(format)),
            Found::Var(_) => {
                let earlier = out.iter().position(|p| {
                    matches!(p, Piece::Var(_, s, e)
                        if e - s >= MIN_COPY_LEN && line[*s..*e] == line[start..end])
                });
                out.push(earlier.map_or(Piece::Var(slots[next_slot], start, end), Piece::Copy));
                next_slot += 1;
            }
            Found::Keep => unreachable!("bug: kept text is not cut out"),
        }
        at = end;
    }
    if at < line.len() {
        out.push(Piece::Literal(at, line.len()));
    }
    out
}

/// Chooses by the share of distinct values; `draw` spreads the slots over the kinds of freshness.
fn behaviour(slot: &Slot, draw: u64) -> Behaviour {
    let seen = slot.values.len();
    let distinct = slot.values.iter().collect::<HashSet<_>>().len();
    let longest = slot.values.iter().map(String::len).max().unwrap_or(0);
    let rare = seen < 5;
    if rare && (longest < 4 || slot.kind == Kind::Float) || !rare && distinct == 1 {
        return Behaviour::Keep;
    }
    if !rare && distinct * 10 <= seen {
        return Behaviour::Observed;
    }
    let draw = draw % 100;
    match slot.kind {
        Kind::Ip => Behaviour::Pool,
        Kind::Int if longest >= 12 => Behaviour::Pool,
        Kind::Float => Behaviour::Near,
        Kind::Hex | Kind::Uuid if draw < 50 => Behaviour::Session,
        Kind::Hex | Kind::Uuid => Behaviour::Fresh,
        Kind::Int if longest <= 2 => Behaviour::Observed,
        Kind::Int => match draw {
            0..35 => Behaviour::Session,
            35..55 => Behaviour::Counter,
            55..85 => Behaviour::Near,
            _ => Behaviour::Fresh,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_from_the_line() {
        for (line, level) in [
            ("03-17 16:13:38.811  1702  2395 D WindowManager: info", Level::Debug),
            ("2015-10-18 18:01:47,978 INFO [main] no error", Level::Info),
            ("[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init()", Level::Info),
            ("sshd[1]: fatal: too late", Level::Fatal),
            ("nothing said, terrors apart", Level::Info),
        ] {
            assert_eq!(level_of(line), level, "{line}");
        }
    }

    #[test]
    fn a_line_is_cut_where_it_varies() {
        let line = "081109 203615 148 INFO dfs: block blk_38865049064139660 of 10.250.7.244:50010 is blk_38865049064139660";
        let system = System::new("hdfs", line);
        let shown: Vec<String> = system.lines[0]
            .pieces
            .iter()
            .map(|p| match p {
                Piece::Literal(s, e) => format!("={}", &line[*s..*e]),
                Piece::Time(format) => (*format).to_owned(),
                Piece::Var(slot, s, e) => format!("{:?}:{}", system.slots[*slot].kind, &line[*s..*e]),
                Piece::Copy(of) => format!("copy {of}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "%y%m%d %H%M%S",
                "= ",
                "Int:148",
                "= INFO dfs: block blk_",
                "Int:38865049064139660",
                "= of ",
                "Ip:10.250.7.244",
                "=:",
                "Int:50010",
                "= is blk_",
                "copy 4"
            ]
        );
    }
}
