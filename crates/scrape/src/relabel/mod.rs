//! Relabelling rules
//! (<https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>).

mod md5;

use regex::Regex;

use crate::LabelSet;

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Writes a label from a pattern.
    #[default]
    Replace,
    /// Drops what does not fit.
    Keep,
    /// Drops what fits.
    Drop,
    /// Drops what differs from a label.
    KeepEqual,
    /// Drops what equals a label.
    DropEqual,
    /// Writes a hash modulo a number.
    HashMod,
    /// Copies labels to other names.
    LabelMap,
    /// Takes labels away whose names fit.
    LabelDrop,
    /// Takes labels away whose names do not fit.
    LabelKeep,
    /// Writes a label in lower case.
    Lowercase,
    /// Writes a label in upper case.
    Uppercase,
}

impl Action {
    /// All by their names in a configuration.
    pub const NAMES: [(&'static str, Self); 11] = [
        ("replace", Self::Replace),
        ("keep", Self::Keep),
        ("drop", Self::Drop),
        ("keepequal", Self::KeepEqual),
        ("dropequal", Self::DropEqual),
        ("hashmod", Self::HashMod),
        ("labelmap", Self::LabelMap),
        ("labeldrop", Self::LabelDrop),
        ("labelkeep", Self::LabelKeep),
        ("lowercase", Self::Lowercase),
        ("uppercase", Self::Uppercase),
    ];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// A regular expression that must fit the whole text.
#[derive(Debug, Clone)]
pub struct Anchored {
    text: String,
    regex: Regex,
}

impl PartialEq for Anchored {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Anchored {
    /// The error is that of the expression.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        Ok(Self { text: text.to_owned(), regex: Regex::new(&format!("^(?s:{text})$"))? })
    }

    /// As it is written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RelabelRule {
    /// Labels whose values are put together.
    pub source_labels: Vec<String>,
    /// What stands between them.
    pub separator: String,
    /// What they, or the names of labels, are compared with.
    pub regex: Anchored,
    /// Of [`Action::HashMod`].
    pub modulus: u64,
    /// Label that is written.
    pub target_label: String,
    /// What is written; `$1` stands for the first group.
    pub replacement: String,
    /// What to do.
    pub action: Action,
}

impl Default for RelabelRule {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".into(),
            regex: Anchored::new("(.*)").expect("the default is an expression"),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".into(),
            action: Action::Replace,
        }
    }
}

/// Whether a text is more than itself in a replacement.
fn has_groups(text: &str) -> bool {
    text.contains('$')
}

impl RelabelRule {
    /// What is wrong with the fields together; the names are those of the configuration.
    pub fn check(&self) -> Result<(), String> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
        };
        let action = self.action.name();
        let default = Self::default();
        let writes = matches!(self.action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if writes && self.target_label.is_empty() {
            return Err(format!("action {action} needs a target_label"));
        }
        if self.action == HashMod && self.modulus == 0 {
            return Err("action hashmod needs a modulus above 0".into());
        }
        if matches!(self.action, Lowercase | Uppercase | KeepEqual | DropEqual)
            && self.replacement != default.replacement
        {
            return Err(format!("action {action} has no replacement"));
        }
        if self.action == LabelMap && self.replacement.is_empty() {
            return Err("action labelmap needs a replacement".into());
        }
        let plain = self.modulus == 0
            && self.separator == default.separator
            && self.replacement == default.replacement;
        if matches!(self.action, KeepEqual | DropEqual) && !(plain && self.regex == default.regex) {
            return Err(format!("action {action} takes source_labels and target_label, no other fields"));
        }
        if matches!(self.action, LabelDrop | LabelKeep)
            && !(plain && self.target_label.is_empty() && self.source_labels.is_empty())
        {
            return Err(format!("action {action} takes regex, no other fields"));
        }
        Ok(())
    }

    /// Applies the rule; `false` drops the target or the sample.
    fn apply(&self, labels: &mut LabelSet) -> bool {
        let mut value = String::new();
        for (position, name) in self.source_labels.iter().enumerate() {
            if position > 0 {
                value.push_str(&self.separator);
            }
            value.push_str(labels.get(name));
        }
        let regex = &self.regex.regex;
        match self.action {
            Action::Keep => return regex.is_match(&value),
            Action::Drop => return !regex.is_match(&value),
            Action::KeepEqual => return labels.get(&self.target_label) == value,
            Action::DropEqual => return labels.get(&self.target_label) != value,
            Action::Replace => {
                let Some(groups) = regex.captures(&value) else { return true };
                let expanded = |template: &str| {
                    let mut text = String::new();
                    if has_groups(template) {
                        groups.expand(template, &mut text);
                    } else {
                        text.push_str(template);
                    }
                    text
                };
                let name = expanded(&self.target_label);
                if !name.is_empty() {
                    let value = expanded(&self.replacement);
                    labels.set(name, value);
                }
            }
            Action::Lowercase => labels.set(&*self.target_label, value.to_lowercase()),
            Action::Uppercase => labels.set(&*self.target_label, value.to_uppercase()),
            Action::HashMod => {
                let hash = md5::last_eight_bytes(value.as_bytes()) % self.modulus;
                labels.set(&*self.target_label, hash.to_string());
            }
            Action::LabelMap => {
                let mapped: Vec<_> = labels
                    .iter()
                    .filter(|(name, _)| regex.is_match(name))
                    .map(|(name, value)| {
                        (regex.replace(name, &*self.replacement).into_owned(), value.to_owned())
                    })
                    .collect();
                for (name, value) in mapped {
                    if !name.is_empty() {
                        labels.set(name, value);
                    }
                }
            }
            Action::LabelDrop => labels.retain(|name| !regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name| regex.is_match(name)),
        }
        true
    }
}

/// Applies rules in their order; `false` as soon as one drops.
pub fn relabel(rules: &[RelabelRule], labels: &mut LabelSet) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, set: impl FnOnce(&mut RelabelRule)) -> RelabelRule {
        let mut rule = RelabelRule { action, ..RelabelRule::default() };
        set(&mut rule);
        rule.check().unwrap();
        rule
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    /// `a=1 b=2` → what the rules make of it, or `dropped`.
    #[track_caller]
    fn check(before: &str, rules: &[RelabelRule], after: &str) {
        let mut labels: LabelSet = before.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        let kept = relabel(rules, &mut labels);
        let text: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(if kept { text.join(" ") } else { "dropped".into() }, after, "{before}");
    }

    #[test]
    fn replace() {
        let replace = |source: &[&str], regex: &str, target: &str, replacement: &str| {
            rule(Action::Replace, |rule| {
                rule.source_labels = names(source);
                rule.regex = Anchored::new(regex).unwrap();
                rule.target_label = target.into();
                rule.replacement = replacement.into();
            })
        };
        check(
            "a=foo b=bar",
            &[replace(&["a", "b"], "f(.*);(.*)r", "d", "ch${1}-ch$1")],
            "a=foo b=bar d=choo-choo",
        );
        // The expression must fit all of the text, and only then is anything written.
        check("a=foo", &[replace(&["a"], "o", "d", "x")], "a=foo");
        check("a=foo", &[replace(&["a"], "fo+", "d", "x${0}y$$z$9")], "a=foo d=xfooy$z");
        // An empty result takes the label away.
        check("a=foo b=bar", &[replace(&["a"], "f(x*)oo", "b", "$1")], "a=foo");
        check("a=foo", &[replace(&["a"], "(f).*", "__${1}_x", "y")], "__f_x=y a=foo");
        check("a=foo", &[replace(&[], "(.*)", "d", "always")], "a=foo d=always");
        check("a=x\ny", &[replace(&["a"], "x.y", "a", "one")], "a=one");
        check(
            "a=some-name-value",
            &[replace(&["a"], "some-([^-]+)-([^,]+)", "${1}", "${2}")],
            "a=some-name-value name=value",
        );
    }

    #[test]
    fn keep_and_drop() {
        let with = |action, regex: &str| {
            rule(action, |rule| {
                rule.source_labels = names(&["a", "b"]);
                rule.regex = Anchored::new(regex).unwrap();
            })
        };
        check("a=foo", &[with(Action::Keep, "foo;")], "a=foo");
        check("a=foo", &[with(Action::Keep, "foo")], "dropped");
        check("a=foo", &[with(Action::Drop, ".*o.*")], "dropped");
        check("a=foo", &[with(Action::Drop, "f|o")], "a=foo");
        let equal = |action| {
            rule(action, |rule| {
                rule.source_labels = names(&["__port"]);
                rule.target_label = "port".into();
            })
        };
        check("__port=1 port=1", &[equal(Action::KeepEqual)], "__port=1 port=1");
        check("__port=1 port=2", &[equal(Action::KeepEqual)], "dropped");
        check("__port=1 port=1", &[equal(Action::DropEqual)], "dropped");
        check("__port=1 port=2", &[equal(Action::DropEqual)], "__port=1 port=2");
    }

    #[test]
    fn names_of_labels() {
        let by = |action, regex: &str| rule(action, |rule| rule.regex = Anchored::new(regex).unwrap());
        check("a=1 ab=2 b=3", &[by(Action::LabelDrop, "a")], "ab=2 b=3");
        check("a=1 ab=2 b=3", &[by(Action::LabelKeep, "a.*")], "a=1 ab=2");
        check("__meta_x=1 b=3", &[by(Action::LabelMap, "__meta_(.+)")], "__meta_x=1 b=3 x=1");
        let bar = rule(Action::LabelMap, |rule| {
            rule.regex = Anchored::new("meta_(ng.*)").unwrap();
            rule.replacement = "bar_${1}".into();
        });
        check("meta_ng_1=a meta_2=b", &[bar], "bar_ng_1=a meta_2=b meta_ng_1=a");
    }

    #[test]
    fn case_and_hash() {
        let write = |action| {
            rule(action, |rule| {
                rule.source_labels = names(&["a"]);
                rule.target_label = "d".into();
                rule.modulus = if action == Action::HashMod { 1000 } else { 0 };
            })
        };
        check("a=bAr123Foo", &[write(Action::Lowercase)], "a=bAr123Foo d=bar123foo");
        check("a=bAr123Foo", &[write(Action::Uppercase)], "a=bAr123Foo d=BAR123FOO");
        // Prometheus' own test has these figures.
        check(
            "a=foo b=bar c=baz",
            &[rule(Action::HashMod, |rule| {
                rule.source_labels = names(&["c"]);
                rule.target_label = "d".into();
                rule.modulus = 1000;
            })],
            "a=foo b=bar c=baz d=976",
        );
        check("a=foo\nbar", &[write(Action::HashMod)], "a=foo\nbar d=734");
    }

    #[test]
    fn fields_that_do_not_go_together_are_refused() {
        let refused = |action, set: fn(&mut RelabelRule), reason: &str| {
            let mut rule = RelabelRule { action, ..RelabelRule::default() };
            set(&mut rule);
            assert_eq!(rule.check(), Err(reason.to_owned()));
        };
        refused(Action::Replace, |_| (), "action replace needs a target_label");
        refused(
            Action::HashMod,
            |rule| rule.target_label = "a".into(),
            "action hashmod needs a modulus above 0",
        );
        refused(
            Action::Lowercase,
            |rule| (rule.target_label, rule.replacement) = ("a".into(), "x".into()),
            "action lowercase has no replacement",
        );
        refused(
            Action::KeepEqual,
            |rule| (rule.target_label, rule.separator) = ("a".into(), "x".into()),
            "action keepequal takes source_labels and target_label, no other fields",
        );
        refused(
            Action::LabelDrop,
            |rule| rule.target_label = "a".into(),
            "action labeldrop takes regex, no other fields",
        );
    }
}
