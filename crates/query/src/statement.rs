//! From text to a statement that is safe to plan: bounded, read-only, and with the labels and
//! attributes it names turned into columns.
//!
//! A name that is no column of a table may be a label or an attribute: `pod`, `k8s_pod_name`,
//! `"k8s.pod.name"`, `k8s.pod.name`, `labels['pod']`, `attributes['user']`. The statement is walked
//! twice: first to collect such names, then, with the names that exist at hand, to rewrite them to
//! plain column names that the table of this query has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use crate::{SqlError, columns::Source, error::bad_query, names::KnownNames, tables::Table};
use datafusion::sql::{
    parser::{DFParserBuilder, Statement},
    sqlparser::{
        ast::{
            AccessExpr, Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
            SetExpr, Statement as SqlStatement, Subscript, TableFactor, Value, VisitMut, VisitorMut,
            WildcardAdditionalOptions, visit_relations,
        },
        dialect::GenericDialect,
        keywords::Keyword,
        tokenizer::{Token, Tokenizer},
    },
};

/// Longest query text.
const MAX_SQL_BYTES: usize = 1 << 20;

/// Most operators, set operations and joins of one query. Each may nest the plan one deeper, and
/// plans are dropped, cloned and compared by recursion: 2 MiB of stack hold about four times this.
pub(crate) const MAX_OPERATORS: usize = 500;

/// Deepest nesting of parentheses and subqueries the parser follows.
const MAX_NESTING: usize = 50;

/// Most tables a query may read, with common table expressions counted as often as they are used.
const MAX_RELATIONS: usize = 200;

/// Parses one statement and refuses what is too large or does more than read.
pub(crate) fn parse(sql: &str) -> Result<Statement, SqlError> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("the query is {} bytes long, more than {MAX_SQL_BYTES}", sql.len());
        return Err(bad_query(message, Some("send a shorter query")));
    }
    let operators = count_operators(sql);
    if operators > MAX_OPERATORS {
        let message = format!("the query has {operators} operators, more than {MAX_OPERATORS}");
        return Err(bad_query(
            message,
            Some("write long chains of OR as IN (…) or as one regular expression"),
        ));
    }
    let parsed = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(MAX_NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(SqlError::from_datafusion)?;
    let statement = match statements.len() {
        0 => return Err(bad_query("the query is empty", Some("try SELECT * FROM logs LIMIT 10"))),
        1 => statements.pop_front().expect("BUG: the length was just looked at"),
        n => {
            return Err(bad_query(format!("{n} statements were sent"), Some("send one statement at a time")));
        }
    };
    refuse_writes(&statement)?;
    Ok(statement)
}

fn count_operators(sql: &str) -> usize {
    // A text that cannot be cut into tokens is refused by the parser with a place.
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let deepens = |token: &Token| match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::DIV
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
        ),
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::EOF => false,
        _ => true,
    };
    tokens.iter().filter(|token| deepens(token)).count()
}

fn refuse_writes(statement: &Statement) -> Result<(), SqlError> {
    let refused = match statement {
        Statement::Explain(explain) => return refuse_writes(&explain.statement),
        Statement::Statement(statement) => match statement.as_ref() {
            SqlStatement::Query(_)
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. } => return Ok(()),
            other => other.to_string(),
        },
        Statement::CreateExternalTable(_) => "CREATE".to_owned(),
        Statement::CopyTo(_) => "COPY".to_owned(),
        Statement::Reset(_) => "RESET".to_owned(),
    };
    let word = refused.split_whitespace().next().unwrap_or_default().to_uppercase();
    let message = format!("{word} is not answered here");
    Err(bad_query(message, Some("SQL only reads: use SELECT, EXPLAIN, SHOW TABLES or DESCRIBE logs")))
}

/// What the first walk finds.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    /// Names that may be labels or attributes of a table, in every spelling that could be meant.
    pub(crate) names: BTreeSet<(Table, String)>,
    /// Names the query gives itself: aliases of columns.
    pub(crate) aliases: HashSet<String>,
    /// Names of tables and their aliases, with the tables of ours they stand for somewhere.
    relations: HashMap<String, BTreeSet<Table>>,
}

impl Mentions {
    /// First walk.
    pub(crate) fn of(statement: &mut Statement) -> Result<Self, SqlError> {
        let Some(query) = inner(statement) else { return Ok(Self::default()) };
        let mut mentions = Self::default();
        let mut count = 0;
        let _ = visit_relations(query, |name| {
            count += 1;
            if let Some(name) = plain_name(name) {
                let table = Table::from_name(&name);
                mentions.relations.entry(name).or_default().extend(table);
            }
            ControlFlow::<()>::Continue(())
        });
        let mut walk =
            Walk { mentions, known: None, extra: BTreeMap::new(), scopes: Vec::new(), weight: count };
        let _: ControlFlow<()> = VisitMut::visit(query, &mut walk);
        if walk.weight > MAX_RELATIONS {
            let message = format!(
                "the query reads more than {MAX_RELATIONS} tables, common table expressions unfolded"
            );
            return Err(bad_query(message, Some("split the query")));
        }
        Ok(walk.mentions)
    }

    /// The tables it reads.
    pub(crate) fn tables(&self) -> BTreeSet<Table> {
        self.relations.values().flatten().copied().collect()
    }

    /// Second walk: rewrites the statement and returns the columns that the tables need for it.
    pub(crate) fn rewrite(self, statement: &mut Statement, known: &KnownNames) -> ExtraColumns {
        let Some(query) = inner(statement) else { return ExtraColumns::new() };
        let mut walk = Walk {
            mentions: self,
            known: Some(known),
            extra: BTreeMap::new(),
            scopes: Vec::new(),
            weight: 0,
        };
        let _: ControlFlow<()> = VisitMut::visit(query, &mut walk);
        walk.extra
    }
}

fn inner(statement: &mut Statement) -> Option<&mut SqlStatement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => inner(&mut explain.statement),
        _ => None,
    }
}

/// As DataFusion sees an identifier: lower case unless quoted.
fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn plain_name(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(normal)
}

/// Columns besides the base, by table and name.
pub(crate) type ExtraColumns = BTreeMap<(Table, String), Source>;

struct Walk<'a> {
    mentions: Mentions,
    /// Present on the second walk.
    known: Option<&'a KnownNames>,
    extra: ExtraColumns,
    /// For each query around: names under which its FROM has tables of ours.
    scopes: Vec<Vec<(String, Table)>>,
    /// Relations read, common table expressions unfolded.
    weight: usize,
}

impl Walk<'_> {
    /// Whether the name is a column of one of these tables; on the first walk it is only noted.
    fn resolve(&mut self, tables: &BTreeSet<Table>, name: &str) -> bool {
        let mut found = false;
        for table in tables {
            if let Some(source) = table.further(name) {
                self.extra.insert((*table, name.to_owned()), source);
                found = true;
                continue;
            }
            match self.known.map(|known| known.source(*table, name)) {
                Some(Some(source)) => {
                    self.extra.insert((*table, name.to_owned()), source);
                    found = true;
                }
                Some(None) => {}
                None => {
                    self.mentions.names.insert((*table, name.to_owned()));
                }
            }
        }
        found
    }

    /// The tables a name without a qualifier may be of.
    fn in_reach(&self) -> BTreeSet<Table> {
        let near: BTreeSet<Table> = self.scopes.iter().flatten().map(|(_, table)| *table).collect();
        if near.is_empty() { self.mentions.tables() } else { near }
    }

    /// What an identifier is rewritten to, when it is a label or an attribute.
    fn label(&mut self, tables: &BTreeSet<Table>, ident: &Ident) -> Option<Ident> {
        let name = normal(ident);
        if tables.iter().any(|table| table.has_base(&name)) || self.resolve(tables, &name) {
            return None;
        }
        let spelled = ident.value != name && self.resolve(tables, &ident.value);
        spelled.then(|| quoted(ident, ident.value.clone()))
    }

    /// `labels['x']` and `attributes['x']` of a table `logs` in reach.
    fn map_access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
        let mut path: Vec<Ident> = match root {
            Expr::Identifier(ident) => vec![ident.clone()],
            Expr::CompoundIdentifier(parts) => parts.clone(),
            _ => return None,
        };
        let (last, dots) = chain.split_last()?;
        for dot in dots {
            let AccessExpr::Dot(Expr::Identifier(ident)) = dot else { return None };
            path.push(ident.clone());
        }
        let AccessExpr::Subscript(Subscript::Index { index: Expr::Value(key) }) = last else { return None };
        let Value::SingleQuotedString(key) = &key.value else { return None };
        let map = path.pop()?;
        let source = match normal(&map).as_str() {
            "labels" | "resource" => Source::Label(key.clone()),
            "attributes" => Source::Attribute(key.clone()),
            _ => return None,
        };
        let scope = self.scopes.last().map_or(&[][..], Vec::as_slice);
        let mut tables: BTreeSet<Table> = match path.as_slice() {
            [] => scope.iter().map(|(_, table)| *table).collect(),
            [alias] => {
                let alias = normal(alias);
                let named = self.scopes.iter().flatten().filter(|(name, _)| *name == alias);
                named.map(|(_, table)| *table).collect()
            }
            _ => return None,
        };
        if matches!(source, Source::Attribute(_)) {
            tables.retain(|table| table.attributes().is_some());
        }
        if tables.is_empty() {
            return None;
        }
        let name = format!("{}['{key}']", normal(&map));
        for table in tables {
            self.extra.insert((table, name.clone()), source.clone());
        }
        let column = quoted(&map, name);
        Some(match path.pop() {
            None => Expr::Identifier(column),
            Some(table) => Expr::CompoundIdentifier(vec![table, column]),
        })
    }

    fn compound(&mut self, parts: &[Ident]) -> Option<Expr> {
        let (first, rest) = parts.split_first()?;
        let of_table = self.mentions.relations.get(&normal(first)).cloned();
        let dotted =
            |parts: &[Ident]| parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        if let Some(tables) = of_table {
            let column = match rest {
                [ident] => self.label(&tables, ident)?,
                _ => {
                    let name = dotted(rest);
                    self.resolve(&tables, &name).then(|| quoted(&rest[0], name))?
                }
            };
            return Some(Expr::CompoundIdentifier(vec![first.clone(), column]));
        }
        let name = dotted(parts);
        self.resolve(&self.in_reach(), &name).then(|| Expr::Identifier(quoted(first, name)))
    }

    /// `SELECT *` shows the base columns, not those that were added for names elsewhere.
    fn expand_wildcard(select: &mut Select) {
        let [table] = select.from.as_slice() else { return };
        let Some((alias, table)) = table_name(&table.relation).filter(|_| table.joins.is_empty()) else {
            return;
        };
        let plain = |options: &WildcardAdditionalOptions| {
            options.opt_ilike.is_none()
                && options.opt_exclude.is_none()
                && options.opt_except.is_none()
                && options.opt_replace.is_none()
                && options.opt_rename.is_none()
        };
        let base = || {
            let names = table.base().iter();
            names.map(|(name, _)| SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(*name))))
        };
        let items = std::mem::take(&mut select.projection);
        select.projection = items
            .into_iter()
            .flat_map(|item| match &item {
                SelectItem::Wildcard(options) if plain(options) => base().collect(),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                    if plain(options) && plain_name(name).as_ref() == Some(&alias) =>
                {
                    base().collect()
                }
                _ => vec![item],
            })
            .collect();
    }
}

fn quoted(at: &Ident, name: String) -> Ident {
    Ident { value: name, quote_style: Some('"'), span: at.span }
}

/// Name under which the relation is a table of ours, if it is.
fn table_name(relation: &TableFactor) -> Option<(String, Table)> {
    let TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
    let name = plain_name(name)?;
    let table = Table::from_name(&name)?;
    Some((alias.as_ref().map_or(name, |alias| normal(&alias.name)), table))
}

fn tables_of(body: &SetExpr, names: &mut Vec<(String, Table)>) {
    match body {
        SetExpr::Select(select) => {
            for table in &select.from {
                names.extend(table_name(&table.relation));
                names.extend(table.joins.iter().filter_map(|join| table_name(&join.relation)));
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            tables_of(left, names);
            tables_of(right, names);
        }
        _ => {}
    }
}

impl VisitorMut for Walk<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut names = Vec::new();
        tables_of(&query.body, &mut names);
        self.scopes.push(names);
        if let Some(with) = &query.with {
            // How many tables each expression stands for, in the order in which they may use each other.
            let mut weights: HashMap<String, usize> = HashMap::new();
            for cte in &with.cte_tables {
                self.mentions.relations.entry(normal(&cte.alias.name)).or_default();
                let mut weight = 0usize;
                let _ = visit_relations(&cte.query, |name| {
                    let used = plain_name(name).and_then(|name| weights.get(&name).copied()).unwrap_or(1);
                    weight = weight.saturating_add(used);
                    ControlFlow::<()>::Continue(())
                });
                weights.insert(normal(&cte.alias.name), weight.max(1));
                self.weight = self.weight.max(weight);
            }
            let mut weight = 0usize;
            let _ = visit_relations(&query.body, |name| {
                let used = plain_name(name).and_then(|name| weights.get(&name).copied()).unwrap_or(1);
                weight = weight.saturating_add(used);
                ControlFlow::<()>::Continue(())
            });
            self.weight = self.weight.max(weight);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.known.is_some() {
            Self::expand_wildcard(select);
        }
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.mentions.aliases.insert(normal(alias));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let table = table_name(factor).map(|(_, table)| table);
        if let TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } = factor
        {
            self.mentions.relations.entry(normal(&alias.name)).or_default().extend(table);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let new = match expr {
            // What the query itself calls a minute is meant, as in `date_trunc(…) AS minute … GROUP BY minute`.
            Expr::Identifier(ident)
                if normal(ident) == "minute" && self.mentions.aliases.contains("minute") =>
            {
                None
            }
            Expr::Identifier(ident) => self.label(&self.in_reach(), ident).map(Expr::Identifier),
            Expr::CompoundIdentifier(parts) => {
                let parts = parts.clone();
                self.compound(&parts)
            }
            Expr::CompoundFieldAccess { root, access_chain } if self.known.is_some() => {
                self.map_access(root, access_chain)
            }
            _ => None,
        };
        if let Some(new) = new {
            *expr = new;
        }
        ControlFlow::Continue(())
    }
}
