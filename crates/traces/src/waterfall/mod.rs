//! A trace as text: its tree, and for each span a bar on the common time axis.
//!
//! Everything that colours say is said by signs and words, too. A service is named where it differs from the
//! parent's. Signs: `✗` failed, `?` the parent is not there, `↺` opened circle of parents, `×2` stored twice,
//! `clock?` starts before its parent or ends before it starts.

mod axis;
mod rows;
mod text;

use anstyle::{AnsiColor, Reset, Style};
use hashbrown::HashMap;

pub use self::text::duration;
use self::{
    axis::Axis,
    rows::{Row, What, rows},
    text::{clean, cut, pad, width},
};
use crate::{Attributes, Place, Span, Trace};

/// How a trace is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of the command line
pub struct Options {
    /// Columns of the terminal; fewer than 40 count as 40.
    pub width: usize,
    /// Whether colours are written.
    pub color: bool,
    /// Whether events and links are shown below their spans.
    pub events: bool,
    /// Whether attributes are shown below their spans (and events).
    pub attributes: bool,
    /// Whether many equal siblings become one row.
    pub fold: bool,
    /// Most rows of spans; the rest is counted.
    pub max_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 100, color: false, events: false, attributes: false, fold: true, max_rows: 2_000 }
    }
}

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Red and yellow have a meaning of their own.
const SERVICE_COLORS: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// Columns of the durations.
const DURATION: usize = 9;

/// Bars narrower than this tell nothing.
const MIN_BAR: usize = 12;

const MIN_WIDTH: usize = 40;

/// What a span is shown as when its resource names no service.
const NO_SERVICE: &str = "(no service)";

/// The trace, lines ended by `\n`.
pub fn waterfall(trace: &Trace, options: &Options) -> String {
    let width = options.width.max(MIN_WIDTH);
    let rows = rows(trace, options.fold, options.max_rows, width);
    let colors = trace.services().into_iter().zip(SERVICE_COLORS.into_iter().cycle()).collect();
    let copies = trace.spans()[0].copies;
    let copies = if trace.spans().iter().all(|span| span.copies == copies) { copies } else { 1 };
    let mut picture = Picture { trace, options, colors, out: String::new(), label: 0, width, copies };
    let labels: Vec<Label> = rows.iter().map(|row| picture.label(row)).collect();
    let longest = labels.iter().map(Label::width).max().unwrap_or(0);
    picture.label = longest.min((width * 9 / 20).max(width.saturating_sub(DURATION + 2 + 3 * MIN_BAR)));
    let bar = width.saturating_sub(picture.label + DURATION + 2).max(MIN_BAR);
    let axis = Axis::new(trace, bar);
    picture.header(&axis);
    for (row, label) in rows.iter().zip(labels) {
        picture.row(row, label, &axis);
    }
    picture.out
}

/// Text in pieces that have a style each.
#[derive(Default)]
struct Label(Vec<(Style, String)>);

impl Label {
    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width(text)).sum()
    }

    fn push(&mut self, style: Style, text: impl Into<String>) {
        self.0.push((style, text.into()));
    }
}

struct Picture<'a> {
    trace: &'a Trace,
    options: &'a Options,
    colors: HashMap<&'a str, AnsiColor>,
    out: String,
    /// Columns of the labels.
    label: usize,
    width: usize,
    /// Copies that every span has, 1 when they differ.
    copies: u32,
}

impl Picture<'_> {
    fn put(&mut self, style: Style, text: &str) {
        if self.options.color && style != Style::new() && !text.is_empty() {
            for part in [&style.to_string(), text, &Reset.to_string()] {
                self.out += part;
            }
        } else {
            self.out += text;
        }
    }

    /// Ends the line without the spaces at its end.
    fn end_line(&mut self) {
        self.out.truncate(self.out.trim_end_matches(' ').len());
        self.out.push('\n');
    }

    fn color(&self, span: &Span) -> Style {
        self.colors.get(span.service()).map_or(Style::new(), |color| color.on_default())
    }

    fn header(&mut self, axis: &Axis) {
        let trace = self.trace;
        self.put(DIM, "trace ");
        self.put(BOLD, &trace.id.to_string());
        self.end_line();
        let start = match jiff::Timestamp::from_nanosecond(i128::from(trace.start())) {
            Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S%.6f UTC").to_string(),
            Err(_) => format!("{} ns", trace.start()),
        };
        let services = trace.services();
        let facts = [
            duration(trace.duration()),
            count(trace.spans().len(), "span"),
            count(services.len(), "service"),
        ];
        self.out += &[start, facts.join(" · "), String::new()].join(" · ");
        let errors = count(trace.errors(), "error");
        self.put(if trace.errors() > 0 { RED.bold() } else { Style::new() }, &errors);
        self.end_line();
        if self.copies > 1 {
            self.put(YELLOW, &format!("every span was stored {} times", self.copies));
            self.end_line();
        }
        for (many, what) in self.remarks() {
            self.put(YELLOW, &format!("{what}: {}", count(many, "span")));
            self.end_line();
        }
        self.legend(&services);
        let (start, _) = axis.range();
        self.out.push('\n');
        if start != trace.start() {
            let away = duration(start.saturating_sub(trace.start()));
            let line = format!("the axis begins {away} after the first start; ◂ and ▸ lie outside of it");
            self.put(DIM, &line);
            self.end_line();
        }
        pad(&mut self.out, 0, self.label + 1);
        self.put(DIM, &axis.ticks());
        self.end_line();
    }

    /// What is strange about the trace.
    fn remarks(&self) -> Vec<(usize, &'static str)> {
        let (trace, tree) = (self.trace, self.trace.tree());
        let places = |place| (0..trace.spans().len()).filter(|n| tree.place(*n) == place).count();
        let copied = trace.spans().iter().filter(|span| span.copies != self.copies).count();
        let clock = (0..trace.spans().len()).filter(|n| self.clock_is_wrong(*n)).count();
        let remarks = [
            (places(Place::Orphan), "? the parent is not there, late or lost"),
            (places(Place::Cycle), "↺ its ancestors lead back to itself"),
            (copied, "× stored more than once"),
            (clock, "clock? starts before its parent or ends before it starts"),
        ];
        remarks.into_iter().filter(|(many, _)| *many > 0).collect()
    }

    fn clock_is_wrong(&self, position: usize) -> bool {
        let span = &self.trace.spans()[position];
        let before_parent = match self.trace.tree().place(position) {
            Place::Child(parent) => span.start < self.trace.spans()[parent].start,
            _ => false,
        };
        span.duration < 0 || before_parent
    }

    /// The services with their spans, as many as fit two lines.
    fn legend(&mut self, services: &[&str]) {
        if services.len() < 2 {
            return;
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for span in self.trace.spans() {
            *counts.entry(span.service()).or_default() += 1;
        }
        let (mut used, mut lines) = (0, 1);
        for (n, service) in services.iter().enumerate() {
            let name = format!("{} {}", shown_service(service), counts[service]);
            let more = format!("… {} more", services.len() - n);
            let needed = width(&name) + 2;
            if used + needed > self.width {
                lines += 1;
                self.end_line();
                used = 0;
            }
            if lines == 2 && n + 1 < services.len() && used + needed + width(&more) > self.width {
                self.put(DIM, &more);
                break;
            }
            let color = self.colors[service].on_default();
            self.put(color, &name);
            self.out += "  ";
            used += needed;
        }
        self.end_line();
    }

    fn label(&self, row: &Row) -> Label {
        let mut label = Label::default();
        label.push(DIM, row.guides.clone());
        let (tree, spans) = (self.trace.tree(), self.trace.spans());
        match &row.what {
            What::Span(position) => {
                let span = &spans[*position];
                match tree.place(*position) {
                    Place::Orphan => label.push(YELLOW, "? "),
                    Place::Cycle => label.push(YELLOW, "↺ "),
                    Place::Root | Place::Child(_) => {}
                }
                if span.is_error() {
                    label.push(RED.bold(), "✗ ");
                }
                let same_service = matches!(tree.place(*position), Place::Child(parent)
                    if spans[parent].service() == span.service());
                if !same_service {
                    label.push(self.color(span).bold(), format!("{} ", shown_service(span.service())));
                }
                label.push(if span.is_error() { RED } else { Style::new() }, clean(&span.operation));
                if span.copies != self.copies {
                    label.push(DIM, format!(" ×{}", span.copies));
                }
                if self.clock_is_wrong(*position) {
                    label.push(YELLOW, " clock?");
                }
            }
            What::Folded(positions, with_parts) => {
                let many = positions.len();
                let text = if *with_parts > many {
                    format!("… {many} more of the same, {with_parts} spans")
                } else {
                    format!("… {many} more of the same")
                };
                label.push(DIM, text);
            }
            What::Rest(spans) => label.push(DIM, format!("… {} not shown", count(*spans, "more span"))),
        }
        label
    }

    fn row(&mut self, row: &Row, label: Label, axis: &Axis) {
        let guides = width(&row.guides);
        let mut used = 0;
        for (n, (style, text)) in label.0.into_iter().enumerate() {
            // Deep trees: what is nearest to the span stays visible.
            let text = if n == 0 { shorten_guides(&text, self.label / 2) } else { text };
            let text = cut(&text, self.label - used);
            used += width(&text);
            self.put(style, &text);
        }
        pad(&mut self.out, used, self.label + 1);
        let spans = self.trace.spans();
        match &row.what {
            What::Span(position) => {
                let span = &spans[*position];
                let fill = if span.duration < 0 { '▒' } else { '█' };
                let style = if span.is_error() { RED } else { self.color(span) };
                self.put(style, &axis.bar(span.start, span.end(), fill));
                self.put(if span.is_error() { RED } else { Style::new() }, &right(&duration(span.duration)));
                self.end_line();
                self.below(*position, guides);
            }
            What::Folded(positions, _) => {
                let of = |value: fn(&Span) -> i64| positions.iter().map(move |n| value(&spans[*n]));
                let from = of(|span| span.start.min(span.end())).min().unwrap_or(0);
                let to = of(|span| span.start.max(span.end())).max().unwrap_or(0);
                let sum = of(|span| span.duration).fold(0, i64::saturating_add);
                let style = self.color(&spans[positions[0]]);
                self.put(style, &axis.bar(from, to, '░'));
                self.put(DIM, &right(&format!("Σ{}", duration(sum))));
                self.end_line();
            }
            What::Rest(_) => self.end_line(),
        }
    }

    /// Status message, attributes, events and links of a span.
    fn below(&mut self, position: usize, guides: usize) {
        let span = &self.trace.spans()[position];
        let indent = guides.min(self.label / 2) + 2;
        if !span.status_message.is_empty() {
            self.line(indent, if span.is_error() { RED } else { DIM }, &clean(&span.status_message));
        }
        if self.options.attributes {
            self.pairs(indent, &span.attributes);
        }
        if !self.options.events {
            return;
        }
        for event in &span.events {
            let after = event.timestamp.saturating_sub(span.start);
            let sign = if after < 0 { "" } else { "+" };
            self.line(indent, DIM, &format!("· {sign}{} {}", duration(after), clean(&event.name)));
            if self.options.attributes {
                self.pairs(indent + 2, &event.attributes);
            }
        }
        for link in &span.links {
            self.line(indent, DIM, &format!("→ trace {} span {}", link.trace_id, link.span_id));
        }
    }

    fn pairs(&mut self, indent: usize, attributes: &Attributes) {
        for (key, value) in attributes {
            self.line(indent, DIM, &format!("{} = {}", clean(key), clean(value)));
        }
    }

    fn line(&mut self, indent: usize, style: Style, text: &str) {
        pad(&mut self.out, 0, indent);
        self.put(style, &cut(text, self.width - indent));
        self.end_line();
    }
}

/// A duration at the right edge.
fn right(text: &str) -> String {
    let mut line = String::from(" ");
    pad(&mut line, width(text), DURATION);
    line + text
}

/// The guides' end in so many columns.
fn shorten_guides(guides: &str, columns: usize) -> String {
    let length = guides.chars().count();
    if length <= columns {
        return guides.to_owned();
    }
    let end: String = guides.chars().skip(length - columns + 1).collect();
    format!("…{end}")
}

fn shown_service(service: &str) -> String {
    if service.is_empty() { NO_SERVICE.to_owned() } else { clean(service) }
}

fn count(many: usize, what: &str) -> String {
    let plural = if many == 1 { "" } else { "s" };
    format!("{many} {what}{plural}")
}
