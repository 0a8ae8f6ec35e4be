//! Where all decoders put their records: counts, bounds, rejections, and the batch.

use std::borrow::Cow;

use trine_model::TenantId;
use trine_schema::{
    Labels, LabelsError, LogBatch, LogBatchBuilder, LogRecord, RawKey, SpellingPlace, StreamRef,
    StreamRegistry,
};

use crate::{Batch, DecodeError, Decoded, Limits, MAX_FIRST_ERRORS, Rejection};

/// Why something is refused, and what to do.
pub(crate) type Reason = Cow<'static, str>;

/// How far a fault reaches.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The request cannot be read any further.
    Request(DecodeError),
    /// This record only.
    Record(Reason),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Request(error)
    }
}

impl From<LabelsError> for Fault {
    fn from(error: LabelsError) -> Self {
        Self::Record(error.to_string().into())
    }
}

/// A fault of one record with a fixed text.
pub(crate) fn bad(reason: &'static str) -> Fault {
    Fault::Record(Cow::Borrowed(reason))
}

/// Keeps equal bytes of different protocols apart in the registry's cache of spellings.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Dialect {
    OtlpProtobuf = 1,
    OtlpJson = 2,
    LokiText = 3,
    LokiJson = 4,
    JsonLines = 5,
    Zipkin = 6,
    JaegerThrift = 7,
    RemoteWrite1 = 8,
    RemoteWrite2 = 9,
    /// Names of metrics, as the stream of their metadata.
    MetricName = 10,
    OtlpMetricsProtobuf = 11,
    OtlpMetricsJson = 12,
}

/// What a row costs besides its text, in bytes; an estimate for [`Limits::max_expanded_bytes`].
const ROW_BYTES: usize = 64;

/// Offsets of one attribute, in bytes.
pub(crate) const ATTRIBUTE_BYTES: usize = 8;

/// A label of a stream besides its text, in bytes.
const LABEL_BYTES: usize = 32;

/// The builder of one signal's batches: attributes are staged, then a row is closed or discarded.
pub(crate) trait Rows {
    type Batch: Batch;
    /// `rows` and `bytes` are guesses that spare reallocation.
    fn new(tenant: TenantId, rows: usize, bytes: usize) -> Self;
    /// Closed rows.
    fn len(&self) -> usize;
    /// Bytes of text so far, staged ones included.
    fn text_bytes(&self) -> usize;
    /// Stages an attribute of the row.
    fn attribute(&mut self, key: &str, value: &str);
    /// Forgets what was staged.
    fn discard(&mut self);
    fn finish(self) -> Self::Batch;
}

impl Rows for LogBatchBuilder {
    type Batch = LogBatch;

    fn new(tenant: TenantId, rows: usize, bytes: usize) -> Self {
        Self::new(tenant, rows, bytes)
    }

    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn text_bytes(&self) -> usize {
        self.text_bytes()
    }

    #[inline]
    fn attribute(&mut self, key: &str, value: &str) {
        self.attribute(key, value);
    }

    fn discard(&mut self) {
        self.discard();
    }

    fn finish(self) -> LogBatch {
        self.finish()
    }
}

/// One request on its way into a batch.
pub(crate) struct Intake<'r, B = LogBatchBuilder> {
    pub(crate) builder: B,
    pub(crate) limits: &'r Limits,
    pub(crate) now_ns: i64,
    registry: &'r StreamRegistry,
    tenant: &'r TenantId,
    /// Of the last series.
    place: SpellingPlace,
    position: usize,
    /// Bytes of the batch that [`Rows::text_bytes`] does not count.
    other_bytes: usize,
    own_times: bool,
    max_expanded_bytes: usize,
    max_record_bytes: usize,
    rejected: usize,
    first_errors: Vec<Rejection>,
}

impl<'r, B: Rows> Intake<'r, B> {
    /// `rows` and `bytes` are guesses that spare reallocation.
    pub(crate) fn new(
        tenant: &'r TenantId,
        registry: &'r StreamRegistry,
        now_ns: i64,
        limits: &'r Limits,
        rows: usize,
        bytes: usize,
    ) -> Self {
        Self {
            builder: B::new(tenant.clone(), rows.min(limits.max_records), bytes),
            limits,
            now_ns,
            registry,
            tenant,
            place: SpellingPlace::default(),
            position: 0,
            other_bytes: 0,
            own_times: true,
            max_expanded_bytes: limits.max_expanded_bytes.min(Limits::MAX_EXPANDED_BYTES),
            max_record_bytes: limits.max_record_bytes.min(Limits::MAX_RECORD_BYTES),
            rejected: 0,
            first_errors: Vec::new(),
        }
    }

    /// The stream of labels that the wire spells as `raw`.
    pub(crate) fn stream(
        &self,
        dialect: Dialect,
        raw: &[u8],
        parse: impl FnOnce(&Limits) -> Result<Labels, Fault>,
    ) -> Result<StreamRef, Fault> {
        self.registry.intern_raw(self.tenant, dialect as u8, raw, || parse(self.limits))
    }

    /// Where the spellings of a protocol begin, for [`Intake::stream_of`].
    pub(crate) fn spelling(&self, dialect: Dialect) -> RawKey {
        RawKey::new(self.tenant, dialect as u8)
    }

    /// The stream behind a spelling that was hashed already. New labels count as bytes of the batch.
    #[inline]
    pub(crate) fn stream_of(
        &mut self,
        key: RawKey,
        parse: impl FnOnce(&Limits) -> Result<Labels, Fault>,
    ) -> Result<StreamRef, Fault> {
        let mut bytes = 0;
        let stream = self.registry.intern_key(self.tenant, key, &mut self.place, || {
            let labels = parse(self.limits)?;
            bytes = labels.iter().map(|(name, value)| name.len() + value.len() + LABEL_BYTES).sum();
            Ok(labels)
        });
        if bytes > 0 {
            self.other_bytes += bytes;
            self.check_expanded()?;
        }
        stream
    }

    pub(crate) fn registry(&self) -> &'r StreamRegistry {
        self.registry
    }

    /// Counts a record before it is decoded. `position` is its number from 1.
    pub(crate) fn begin(&mut self) -> Result<(), DecodeError> {
        if self.position >= self.limits.max_records {
            return Err(DecodeError::TooManyRecords { limit: self.limits.max_records });
        }
        self.check_expanded()?;
        self.position += 1;
        Ok(())
    }

    #[inline]
    pub(crate) fn check_expanded(&self) -> Result<(), DecodeError> {
        if self.builder.text_bytes() + self.other_bytes > self.max_expanded_bytes {
            return Err(DecodeError::Expanded { limit: self.max_expanded_bytes });
        }
        Ok(())
    }

    /// For formats that count lines.
    pub(crate) fn set_position(&mut self, position: usize) {
        self.position = position;
    }

    /// Refuses a record that is too long on the wire.
    pub(crate) fn check_length(&self, bytes: usize) -> Result<(), Fault> {
        if bytes <= self.max_record_bytes {
            return Ok(());
        }
        let limit = self.max_record_bytes;
        let row = B::Batch::ROW;
        Err(Fault::Record(format!("the {row} has {bytes} bytes, {limit} are allowed; shorten it").into()))
    }

    /// Refuses one attribute too many.
    pub(crate) fn check_attributes(&self, count: usize) -> Result<(), Fault> {
        if count <= self.limits.max_attributes_per_record {
            return Ok(());
        }
        let limit = self.limits.max_attributes_per_record;
        let row = B::Batch::ROW;
        Err(Fault::Record(format!("the {row} has more than {limit} attributes; send fewer").into()))
    }

    /// Notes what a row that was closed has besides its text: its time (that of arrival, where none was
    /// sent), and its bytes that [`Rows::text_bytes`] does not count.
    #[inline]
    pub(crate) fn closed(&mut self, time: i64, bytes: usize) {
        self.own_times &= time != self.now_ns;
        self.grew(bytes);
    }

    /// Notes that a record brought no time.
    pub(crate) fn arrived(&mut self) {
        self.own_times = false;
    }

    /// Notes a row that brought its own time, and its bytes that [`Rows::text_bytes`] does not count.
    #[inline]
    pub(crate) fn grew(&mut self, bytes: usize) {
        self.other_bytes += ROW_BYTES + bytes;
    }

    /// Closes a record that [`Intake::begin`] began: rejects it when only it is at fault.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Result<(), Fault>) -> Result<(), DecodeError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Fault::Record(reason)) => {
                self.reject(reason);
                Ok(())
            }
            Err(Fault::Request(error)) => Err(error),
        }
    }

    /// Rejects the record that was begun last.
    #[cold]
    pub(crate) fn reject(&mut self, reason: Reason) {
        self.builder.discard();
        self.rejected += 1;
        if self.first_errors.len() < MAX_FIRST_ERRORS {
            self.first_errors.push(Rejection { position: self.position, reason: reason.into_owned() });
        }
    }

    /// Rejects records that share a reason (a stream with bad labels); it is told once.
    pub(crate) fn reject_all(&mut self, records: usize, reason: Reason) -> Result<(), DecodeError> {
        if records == 0 {
            return Ok(());
        }
        self.begin()?;
        self.reject(reason);
        self.rejected += records - 1;
        self.position += records - 1;
        if self.position > self.limits.max_records {
            return Err(DecodeError::TooManyRecords { limit: self.limits.max_records });
        }
        Ok(())
    }

    /// As [`Intake::finish`], where a record may become several rows or none.
    pub(crate) fn finish_records(self) -> Decoded<B::Batch> {
        let accepted = self.position - self.rejected;
        Decoded { accepted, ..self.finish() }
    }

    pub(crate) fn finish(self) -> Decoded<B::Batch> {
        let accepted = self.builder.len();
        Decoded {
            batch: (accepted > 0).then(|| self.builder.finish()),
            accepted,
            rejected: self.rejected,
            first_errors: self.first_errors,
            own_times: self.own_times,
        }
    }
}

impl Intake<'_> {
    /// Closes the row that was staged in the builder.
    pub(crate) fn push(&mut self, record: &LogRecord<'_>, attributes: usize) -> Result<(), Fault> {
        self.builder.push(record).map_err(|_| bad(BODY_NOT_UTF8))?;
        let texts = record.scope_name.len() + record.severity_text.len() + record.event_name.len();
        self.closed(record.timestamp, ATTRIBUTE_BYTES * attributes + texts);
        Ok(())
    }
}

const BODY_NOT_UTF8: &str = "the body is not valid UTF-8; send text as UTF-8";

/// Length from which the SIMD check is dearer to start than it saves; below, the standard
/// library's word-wise check is as fast.
const SIMD_CHECK_BYTES: usize = 64;

/// The bytes as text. `reason` names the field in the record's rejection.
#[inline]
pub(crate) fn utf8<'a>(bytes: &'a [u8], reason: &'static str) -> Result<&'a str, Fault> {
    if bytes.len() < SIMD_CHECK_BYTES {
        std::str::from_utf8(bytes).map_err(|_| bad(reason))
    } else {
        simdutf8::basic::from_utf8(bytes).map_err(|_| bad(reason))
    }
}

/// Nanoseconds since 1970 from an unsigned count.
#[inline]
pub(crate) fn timestamp(nanoseconds: u64) -> Result<i64, Fault> {
    i64::try_from(nanoseconds).map_err(|_| {
        Fault::Record(
            format!("time {nanoseconds} lies after the year 2262; send nanoseconds since 1970").into(),
        )
    })
}

/// Pairs become labels when they keep the limits.
pub(crate) fn labels(pairs: Vec<(Box<str>, Box<str>)>, limits: &Limits) -> Result<Labels, Fault> {
    if pairs.len() > limits.max_labels_per_stream {
        let limit = limits.max_labels_per_stream;
        let text = format!("the stream has more than {limit} labels; send some as attributes");
        return Err(Fault::Record(text.into()));
    }
    check_labels(&pairs, limits, "send it as an attribute")?;
    Ok(Labels::new(pairs)?)
}

/// Refuses pairs without a name and those that are too long; `instead` says where a long value may go.
pub(crate) fn check_labels(
    pairs: &[(Box<str>, Box<str>)],
    limits: &Limits,
    instead: &str,
) -> Result<(), Fault> {
    let refuse = |text: String| Err(Fault::Record(text.into()));
    for (name, value) in pairs {
        if name.is_empty() {
            return refuse("a label has no name; name it".into());
        }
        if name.len() > limits.max_label_name_bytes {
            let (got, limit) = (name.len(), limits.max_label_name_bytes);
            let name: String = name.chars().take(40).collect();
            return refuse(format!("label name {name:?}… has {got} bytes, {limit} are allowed; shorten it"));
        }
        if value.len() > limits.max_label_value_bytes {
            let (got, limit) = (value.len(), limits.max_label_value_bytes);
            return refuse(format!(
                "the value of label {name:?} has {got} bytes, {limit} are allowed; {instead}"
            ));
        }
    }
    Ok(())
}
