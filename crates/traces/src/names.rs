//! Names and values that occur, for the lists from which people choose.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{UInt8Type, UInt32Type},
};
use futures::StreamExt;
use hashbrown::HashSet;
use trine_model::TenantId;
use trine_schema::{ScanError, StreamRef, StreamRegistry, Tables, columns::attributes_of, spans::column};

use crate::{AssembleError, Budget, FindError, Resource, find, search::TagPlace, tempo::TagNames};

/// Newest spans whose attributes are looked at.
const SAMPLE: usize = 20_000;

/// Most values of one list.
const MAX_VALUES: usize = 10_000;

/// Lists are for people who choose from them: what is not found in this time is left out, and the answer says
/// so.
const TIME: Duration = Duration::from_secs(5);

/// Calls `note` for each batch of the spans in the range, until it says that it has enough or the time is up.
async fn each_batch(
    tables: &dyn Tables,
    tenant: &TenantId,
    range: RangeInclusive<i64>,
    budget: &Budget,
    (projection, newest): (&[usize], Option<usize>),
    mut note: impl FnMut(&RecordBatch) -> Result<bool, AssembleError>,
) -> Result<(), FindError> {
    let mut scan = find::scan(tenant, range, budget);
    let own = Instant::now() + TIME;
    scan.deadline = Some(scan.deadline.map_or(own, |deadline| deadline.min(own)));
    (scan.projection, scan.newest, scan.dictionaries) = (projection.to_vec(), newest, true);
    let mut stream = tables.scan_spans(scan);
    while let Some(batch) = stream.next().await {
        match batch {
            Ok(batch) => {
                if !note(&batch)? {
                    let missing = format!("only the first {MAX_VALUES} values found are listed");
                    budget.stats.partial.lock().push(missing);
                    break;
                }
            }
            Err(ScanError::Deadline(ms)) => {
                let missing = format!("the list has what was found in {ms} ms; give start and end");
                budget.stats.partial.lock().push(missing);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a dyn Array, AssembleError> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or(AssembleError::missing(name))
}

fn streams(batch: &RecordBatch) -> Result<&[StreamRef], AssembleError> {
    Ok(column(batch, "stream")?.as_primitive::<UInt32Type>().values())
}

/// Streams that sent spans in the range.
async fn resources(
    tables: &dyn Tables,
    tenant: &TenantId,
    range: RangeInclusive<i64>,
    budget: &Budget,
) -> Result<Vec<Resource>, FindError> {
    let mut seen: HashSet<StreamRef> = HashSet::new();
    each_batch(tables, tenant, range, budget, (&[column::STREAM], None), |batch| {
        let mut before = None;
        for stream in streams(batch)? {
            if before.replace(*stream) != Some(*stream) {
                seen.insert(*stream);
            }
        }
        Ok(true)
    })
    .await?;
    Ok(seen.into_iter().map(|stream| Resource(tables.registry().get(stream))).collect())
}

/// Services that sent spans in the range, sorted.
pub(crate) async fn services(
    tables: &dyn Tables,
    tenant: &TenantId,
    range: RangeInclusive<i64>,
    budget: &Budget,
) -> Result<BTreeSet<String>, FindError> {
    let resources = resources(tables, tenant, range, budget).await?;
    Ok(resources
        .iter()
        .map(|resource| resource.service())
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Operations of a service (or of all) with their kinds, sorted.
pub(crate) async fn operations(
    tables: &dyn Tables,
    tenant: &TenantId,
    service: Option<&str>,
    range: RangeInclusive<i64>,
    budget: &Budget,
) -> Result<BTreeSet<(String, u8)>, FindError> {
    let mut operations: HashSet<(String, u8)> = HashSet::new();
    let mut of_service = OfService::new(tables.registry(), service);
    let projection = [column::STREAM, column::OPERATION, column::KIND];
    each_batch(tables, tenant, range, budget, (&projection, None), |batch| {
        let streams = streams(batch)?;
        let names = column(batch, "operation")?;
        let kinds = column(batch, "kind")?.as_primitive::<UInt8Type>();
        let mut note = |name: &str, kind| {
            if !operations.contains(&Named(name, kind)) {
                operations.insert((name.to_owned(), kind));
            }
        };
        if let Some(coded) = names.as_dictionary_opt::<UInt32Type>() {
            let (codes, names) = (coded.keys().values(), coded.values().as_string::<i32>());
            let mut seen: HashSet<(StreamRef, u32, u8)> = HashSet::new();
            for (row, stream) in streams.iter().enumerate() {
                let (code, kind) = (codes[row], kinds.value(row));
                if seen.insert((*stream, code, kind)) && of_service.is(*stream) {
                    note(names.value(code as usize), kind);
                }
            }
        } else {
            let names = names.as_string_opt::<i32>().ok_or(AssembleError::missing("operation"))?;
            for (row, stream) in streams.iter().enumerate() {
                if of_service.is(*stream) {
                    note(names.value(row), kinds.value(row));
                }
            }
        }
        Ok(operations.len() < MAX_VALUES)
    })
    .await?;
    Ok(operations.into_iter().collect())
}

/// Looks up a pair without making a text of its own.
#[derive(Hash)]
struct Named<'a>(&'a str, u8);

impl hashbrown::Equivalent<(String, u8)> for Named<'_> {
    fn equivalent(&self, key: &(String, u8)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

/// Whether a stream is of a service, looked up once.
struct OfService<'a> {
    registry: &'a StreamRegistry,
    service: Option<&'a str>,
    known: hashbrown::HashMap<StreamRef, bool>,
}

impl<'a> OfService<'a> {
    fn new(registry: &'a StreamRegistry, service: Option<&'a str>) -> Self {
        Self { registry, service, known: hashbrown::HashMap::new() }
    }

    fn is(&mut self, stream: StreamRef) -> bool {
        let Some(service) = self.service else { return true };
        *self.known.entry(stream).or_insert_with(|| self.registry.get(stream).service() == service)
    }
}

/// Names of attributes: of all resources, and of the newest spans.
pub(crate) async fn tag_names(
    tables: &dyn Tables,
    tenant: &TenantId,
    range: RangeInclusive<i64>,
    budget: &Budget,
) -> Result<TagNames, FindError> {
    let mut names = TagNames::default();
    for resource in resources(tables, tenant, range.clone(), budget).await? {
        names.resource.extend(resource.labels.iter().map(|(key, _)| key.to_owned()));
    }
    each_batch(tables, tenant, range, budget, (&[column::ATTRIBUTES], Some(SAMPLE)), |batch| {
        let attributes = column(batch, "attributes")?.as_map();
        let keys = attributes.keys().as_string::<i32>();
        for key in keys.iter().flatten() {
            if !names.span.contains(key) {
                names.span.insert(key.to_owned());
            }
        }
        Ok(names.span.len() < MAX_VALUES)
    })
    .await?;
    Ok(names)
}

/// Values of an attribute: of all resources, and of the newest spans.
pub(crate) async fn tag_values(
    tables: &dyn Tables,
    tenant: &TenantId,
    (place, key): (TagPlace, &str),
    range: RangeInclusive<i64>,
    budget: &Budget,
) -> Result<BTreeSet<String>, FindError> {
    let mut values = BTreeSet::new();
    if place != TagPlace::Span {
        for resource in resources(tables, tenant, range.clone(), budget).await? {
            values.extend(resource.labels.get(key).map(str::to_owned));
        }
    }
    if place != TagPlace::Resource {
        each_batch(tables, tenant, range, budget, (&[column::ATTRIBUTES], Some(SAMPLE)), |batch| {
            let attributes = column(batch, "attributes")?.as_map();
            for row in 0..batch.num_rows() {
                values.extend(
                    attributes_of(attributes, row).filter(|(k, _)| *k == key).map(|(_, v)| v.to_owned()),
                );
            }
            Ok(values.len() < MAX_VALUES)
        })
        .await?;
    }
    Ok(values)
}
