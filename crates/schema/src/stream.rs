//! A *stream*: the labels that a run of log records shares (resource attributes in OTLP, stream
//! labels in Loki), interned once per process.

use std::{fmt, sync::Arc};

use hashbrown::{HashMap, HashTable};
use parking_lot::RwLock;
use trine_model::TenantId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::metrics::METRIC_NAME;

/// 128-bit hash of tenant and canonical labels; the same on every node and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u128);

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Position of a stream in the process's [`StreamRegistry`]; the value of the `stream` column.
/// Never written to disk as it is.
pub type StreamRef = u32;

/// The labels cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// One name stands twice with different values.
    #[error("label {0:?} is given twice with different values; send each label once")]
    Duplicate(String),
    /// The registry is at its bound.
    #[error(
        "more than {0} streams and series are open; drop labels that take many values, or send them as \
         attributes of records"
    )]
    TooManyStreams(usize),
}

/// Label pairs sorted by name, names unique, as the sender spelled them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Sorts the pairs; a pair that repeats exactly is folded.
    pub fn new(mut pairs: Vec<(Box<str>, Box<str>)>) -> Result<Self, LabelsError> {
        pairs.sort_unstable();
        pairs.dedup();
        if let Some(two) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(LabelsError::Duplicate(two[0].0.to_string()));
        }
        Ok(Self(pairs.into()))
    }

    /// For tests and generators.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        Self::new(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
            .expect("literal labels have unique names")
    }

    /// Value of a label by its stored name, or by its Prometheus-style name (`service_name`
    /// finds `service.name`).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| *key == name)
            .or_else(|| self.iter().find(|(key, _)| label_name_eq(key, name)))
            .map(|(_, value)| value)
    }

    /// Pairs in order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// Canonical JSON object, `{"a":"1","b":"2"}`; what segments and the log store.
    pub fn to_json(&self) -> String {
        let bytes = self.iter().map(|(key, value)| key.len() + value.len() + "\"\":\"\",".len());
        let mut text = String::with_capacity(bytes.sum::<usize>() + 2);
        text.push('{');
        for (i, (key, value)) in self.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            push_json(&mut text, key);
            text.push(':');
            push_json(&mut text, value);
        }
        text.push('}');
        text
    }

    /// Reads back [`Labels::to_json`]; `None` when the text is not an object of strings.
    pub fn from_json(text: &str) -> Option<Self> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
        let pairs = object.into_iter().map(|(key, value)| match value {
            serde_json::Value::String(value) => Some((key.into_boxed_str(), value.into_boxed_str())),
            _ => None,
        });
        Self::new(pairs.collect::<Option<_>>()?).ok()
    }
}

/// Adds a JSON string.
fn push_json(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// A stored label or attribute name as LogQL and PromQL may write it: everything outside
/// `[a-zA-Z0-9_]` becomes `_`, a leading digit gets `_` before it.
pub fn label_name(stored: &str) -> String {
    let mut name = String::with_capacity(stored.len() + 1);
    if stored.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        name.push('_');
    }
    name.extend(stored.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    name
}

/// `label_name(stored) == name` without allocating.
pub fn label_name_eq(stored: &str, name: &str) -> bool {
    let name = match stored.as_bytes().first() {
        Some(first) if first.is_ascii_digit() => match name.strip_prefix('_') {
            Some(rest) => rest,
            None => return false,
        },
        _ => name,
    };
    stored.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).eq(name.chars())
}

/// Labels that name the service, by falling preference.
const SERVICE_LABELS: [&str; 7] =
    ["service.name", "service_name", "service", "app", "job", "k8s.container.name", "container"];

/// One interned stream.
#[derive(Debug)]
pub struct Stream {
    /// Identity across processes.
    pub id: StreamId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its labels.
    pub labels: Labels,
}

impl Stream {
    /// The service: the first of `service.name`, `service_name`, `service`, `app`, `job`,
    /// `k8s.container.name`, `container` that is set, else empty.
    pub fn service(&self) -> &str {
        SERVICE_LABELS
            .iter()
            .find_map(|name| self.labels.iter().find(|(key, _)| key == name))
            .map_or("", |(_, value)| value)
    }

    /// Bytes of memory it takes, about: 16 are the allocator's per text.
    pub fn memory(&self) -> usize {
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len() + 64);
        size_of::<Self>() + 32 + labels.sum::<usize>()
    }
}

/// Most streams one process holds; a stream costs about 500 bytes.
const MAX_STREAMS: usize = 2_000_000;

/// Most spellings of labels that one generation of the cache remembers: 30 bytes each, at most 52 MiB. There are
/// two generations.
const MAX_SPELLINGS: usize = 1_800_000;

/// Hash of labels as the wire spelled them, with tenant and protocol: what a decoder asks for before it
/// parses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawKey([u64; 2]);

impl RawKey {
    /// Where spellings of a tenant and a protocol begin; `dialect` keeps equal bytes of different protocols
    /// apart.
    pub fn new(tenant: &TenantId, dialect: u8) -> Self {
        let mut bytes = vec![dialect];
        bytes.extend_from_slice(tenant.as_str().as_bytes());
        Self::of(&bytes)
    }

    /// Hash of bytes alone, for [`RawKey::with`].
    #[inline]
    pub fn of(raw: &[u8]) -> Self {
        let hash = xxh3_128(raw);
        Self([hash as u64, (hash >> 64) as u64])
    }

    /// Two numbers as they are, for [`RawKey::with`].
    pub fn numbers(first: u64, second: u64) -> Self {
        Self([first, second])
    }

    /// This one, then `next`; their order counts.
    #[inline]
    #[must_use]
    pub fn with(self, next: Self) -> Self {
        let mut both = [0; 32];
        for (place, word) in both.chunks_exact_mut(8).zip(self.0.into_iter().chain(next.0)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Self::of(&both)
    }

    /// Its bytes, to be hashed with others.
    #[inline]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0[0]) | u128::from(self.0[1]) << 64).to_le_bytes()
    }
}

/// Interns streams: labels to [`StreamRef`] and back.
#[derive(Default)]
pub struct StreamRegistry {
    inner: RwLock<Inner>,
    spellings: RwLock<Spellings>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<u128, StreamRef>,
    streams: Vec<Arc<Stream>>,
    /// [`metric_hash`] of each.
    metrics: Vec<u32>,
}

/// Streams by how the wire spelled their labels, so that a decoder parses the labels of a known stream no
/// second time. When the newer generation is full, the older one is forgotten; what is still in use comes
/// over from it before.
#[derive(Default)]
struct Spellings {
    newer: Generation,
    older: Generation,
}

/// Spellings in the order in which they came. A sender tells its series in the same order again and again, so
/// the one behind the last is tried before the table: it lies beside it in memory.
#[derive(Default)]
struct Generation {
    known: Vec<(RawKey, StreamRef)>,
    /// Places in `known`.
    table: HashTable<u32>,
}

impl Generation {
    #[inline]
    fn get(&self, key: RawKey, place: &mut SpellingPlace) -> Option<StreamRef> {
        let next = place.0.wrapping_add(1);
        if let Some((known, stream)) = self.known.get(next)
            && *known == key
        {
            place.0 = next;
            return Some(*stream);
        }
        let found = *self.table.find(key.0[0], |at| self.known[*at as usize].0 == key)? as usize;
        place.0 = found;
        Some(self.known[found].1)
    }
}

/// Where a request found its last spelling.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpellingPlace(usize);

impl Spellings {
    fn insert(&mut self, key: RawKey, stream: StreamRef, most: usize) {
        if self.newer.get(key, &mut SpellingPlace::default()).is_some() {
            return;
        }
        if self.newer.known.len() >= most {
            self.older = std::mem::take(&mut self.newer);
        }
        let Generation { known, table } = &mut self.newer;
        table.insert_unique(key.0[0], known.len() as u32, |at| known[*at as usize].0.0[0]);
        known.push((key, stream));
    }
}

impl StreamRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stream with these labels, registered when it is new.
    pub fn intern(&self, tenant: &TenantId, labels: Labels) -> Result<StreamRef, LabelsError> {
        let id = stream_id(tenant, &labels);
        if let Some(found) = self.inner.read().by_id.get(&id) {
            return Ok(*found);
        }
        let mut inner = self.inner.write();
        if let Some(found) = inner.by_id.get(&id) {
            return Ok(*found);
        }
        if inner.streams.len() >= MAX_STREAMS {
            return Err(LabelsError::TooManyStreams(MAX_STREAMS));
        }
        let stream_ref = inner.streams.len() as StreamRef;
        let metric = labels.iter().find(|(name, _)| *name == METRIC_NAME);
        inner.metrics.push(metric_hash(metric.map_or("", |(_, metric)| metric)));
        inner.streams.push(Arc::new(Stream { id: StreamId(id), tenant: tenant.clone(), labels }));
        inner.by_id.insert(id, stream_ref);
        Ok(stream_ref)
    }

    /// The stream with these labels: the registered one, or else one that stays unregistered, so that whoever
    /// only reads takes no room from those who write.
    pub fn resolve(&self, tenant: &TenantId, labels: Labels) -> Arc<Stream> {
        let id = stream_id(tenant, &labels);
        let inner = self.inner.read();
        match inner.by_id.get(&id) {
            Some(known) => inner.streams[*known as usize].clone(),
            None => Arc::new(Stream { id: StreamId(id), tenant: tenant.clone(), labels }),
        }
    }

    /// The stream whose labels the wire spelled as `raw`; `parse` runs only when this spelling is new.
    /// `dialect` keeps equal bytes of different protocols apart.
    pub fn intern_raw<E: From<LabelsError>>(
        &self,
        tenant: &TenantId,
        dialect: u8,
        raw: &[u8],
        parse: impl FnOnce() -> Result<Labels, E>,
    ) -> Result<StreamRef, E> {
        let key = RawKey::new(tenant, dialect).with(RawKey::of(raw));
        self.intern_key(tenant, key, &mut SpellingPlace::default(), parse)
    }

    /// The stream behind a spelling that the caller hashed; `parse` runs only when it is new. `place` is kept
    /// from call to call.
    #[inline]
    pub fn intern_key<E: From<LabelsError>>(
        &self,
        tenant: &TenantId,
        key: RawKey,
        place: &mut SpellingPlace,
        parse: impl FnOnce() -> Result<Labels, E>,
    ) -> Result<StreamRef, E> {
        let spellings = self.spellings.read();
        if let Some(found) = spellings.newer.get(key, place) {
            return Ok(found);
        }
        let found = spellings.older.get(key, &mut SpellingPlace::default());
        drop(spellings);
        let stream = match found {
            Some(stream) => stream,
            None => self.intern(tenant, parse()?)?,
        };
        self.spellings.write().insert(key, stream, MAX_SPELLINGS);
        Ok(stream)
    }

    /// The stream behind a reference handed out by this registry.
    ///
    /// # Panics
    /// When the reference came from another registry: a bug.
    pub fn get(&self, stream_ref: StreamRef) -> Arc<Stream> {
        self.inner.read().streams[stream_ref as usize].clone()
    }

    /// Hands out [`metric_hash`] of all streams by their references: a question about one metric passes by
    /// most streams without looking at their labels. No stream can be registered meanwhile.
    pub fn with_metric_hashes<R>(&self, read: impl FnOnce(&[u32]) -> R) -> R {
        read(&self.inner.read().metrics)
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.inner.read().streams.len()
    }

    /// Whether no stream is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A short hash of a metric's name; of streams that are no series that of the empty text.
pub fn metric_hash(metric: &str) -> u32 {
    xxh3_64(metric.as_bytes()) as u32
}

fn stream_id(tenant: &TenantId, labels: &Labels) -> u128 {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(tenant.as_str().as_bytes());
    bytes.push(0);
    for (key, value) in labels.iter() {
        for part in [key, value] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_labels_are_one_stream_and_tenants_are_apart() {
        let registry = StreamRegistry::new();
        let a = TenantId::new("a").unwrap();
        let b = TenantId::new("b").unwrap();
        let labels = || Labels::from_pairs(&[("z", "1"), ("app", "web")]);
        let first = registry.intern(&a, labels()).unwrap();
        assert_eq!(registry.intern(&a, labels()), Ok(first));
        assert_ne!(registry.intern(&b, labels()), Ok(first));
        assert_eq!(registry.get(first).service(), "web");
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn a_known_spelling_is_not_parsed_again() {
        let registry = StreamRegistry::new();
        let tenant = TenantId::default();
        let parse = || Ok::<_, LabelsError>(Labels::from_pairs(&[("app", "web")]));
        let first = registry.intern_raw(&tenant, 1, b"{app=\"web\"}", parse).unwrap();
        let again = registry.intern_raw(&tenant, 1, b"{app=\"web\"}", || -> Result<_, LabelsError> {
            panic!("parsed a second time")
        });
        assert_eq!(again, Ok(first));
    }

    #[test]
    fn spellings_in_use_survive_a_full_cache() {
        let mut spellings = Spellings::default();
        let key = |number: u32| RawKey::of(&number.to_le_bytes());
        for number in 0..10 {
            spellings.insert(key(number), number, 4);
            spellings.insert(key(0), 0, 4);
            assert!(spellings.newer.known.len() <= 4 && spellings.older.known.len() <= 4);
            let mut place = SpellingPlace::default();
            let mut known = |number| {
                let generations = [&spellings.newer, &spellings.older];
                generations.into_iter().find_map(|generation| generation.get(key(number), &mut place))
            };
            assert_eq!(known(number), Some(number));
            assert_eq!(known(0), Some(0));
            assert_eq!(known(1000), None);
        }
        let (one, two) = (key(1), key(2));
        assert_ne!(one.with(two), two.with(one));
    }

    #[test]
    fn labels_survive_json_and_refuse_contradiction() {
        let labels = Labels::from_pairs(&[("service.name", "a\"b\n"), ("9x", "ä")]);
        assert_eq!(Labels::from_json(&labels.to_json()), Some(labels.clone()));
        assert_eq!(labels.get("service_name"), Some("a\"b\n"));
        assert_eq!(labels.get("_9x"), Some("ä"));
        assert_eq!(label_name("9x.y"), "_9x_y");
        let twice = Labels::new(vec![("a".into(), "1".into()), ("a".into(), "2".into())]);
        assert_eq!(twice, Err(LabelsError::Duplicate("a".into())));
    }
}
