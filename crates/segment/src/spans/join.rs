//! Several segments of spans as one file, without encoding a span again.
//!
//! Column chunks are copied, indexes and summaries laid end to end with common numbers of streams,
//! operations and services; the table of traces is made anew from their ids. Each input stays a run, sorted
//! in itself: a trace with spans in several runs has a number and a summary in each, as it has in several segments.
//! Where inputs differ in the attributes that have columns, those that lack one get it: what their maps
//! hold of it moves there, and only these columns are encoded again.

use std::{hash::Hash, io::Write, ops::Range, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, AsArray},
    datatypes::SchemaRef,
};
use hashbrown::HashMap;
use parquet::{
    arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    file::{
        metadata::ParquetMetaData,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::ColumnDescPtr,
};

use super::{
    SpanSegment,
    columns::{stored, stored_schema},
    directory,
    encode::{Chunk, EncodedLeaf, is_empty, nulls, texts},
    filter::trace_id,
    index::{Granule, MAX_OTHERS, SpanIndex, StreamName},
    numbers::NumberSet,
    read::LoadedSpans,
    shape::{MAX_COLUMNS, split_attributes},
    summary::{Summaries, Summary},
    write::{finish, properties},
};
use crate::{
    SegmentError, SegmentMeta, WriteOptions,
    blocks::BlockWriter,
    file::CheckedReader,
    join::{as_it_is, page_indexes},
    write::begin_parquet,
};

/// Whether segments can be joined: their attributes with columns of their own are not too many.
pub fn can_join_spans(segments: &[Arc<SpanSegment>]) -> bool {
    let mut names: Vec<&str> = segments.iter().flat_map(|segment| segment.columns()).collect();
    names.sort_unstable();
    names.dedup();
    names.len() <= MAX_COLUMNS
}

/// Writes several segments one behind the other to `out`; the caller syncs it. [`can_join_spans`] tells whether
/// it will do. A writer that fails ends it early.
pub fn join_spans<W: Write + Send>(
    segments: &[Arc<SpanSegment>],
    options: &WriteOptions,
    out: W,
) -> Result<SegmentMeta, SegmentError> {
    if segments.is_empty() || !can_join_spans(segments) {
        let reason = format!("a join takes segments with at most {MAX_COLUMNS} attributes as columns");
        return Err(SegmentError::Contract(reason));
    }
    let mut attributes: Vec<String> =
        segments.iter().flat_map(|segment| segment.columns()).map(str::to_owned).collect();
    attributes.sort_unstable();
    attributes.dedup();
    let schema = stored_schema(&attributes);
    let file = begin_parquet(out, &schema, properties(&attributes, options)?)?;
    let mut joined = Joined {
        leaves: file.schema_descr().columns().to_vec(),
        roots: (0..file.schema_descr().num_columns())
            .map(|leaf| file.schema_descr().get_column_root_idx(leaf))
            .collect(),
        file,
        schema,
        zstd_level: options.zstd_level,
        summaries: Summaries::default(),
        streams: HashMap::new(),
        operations: HashMap::new(),
        services: HashMap::new(),
        index: SpanIndex { attributes, ..SpanIndex::default() },
    };
    for segment in segments {
        joined.add(segment)?;
    }
    // More than the most say that any may occur; so does what is cut here.
    joined.index.others.sort_unstable();
    joined.index.others.dedup();
    joined.index.others.truncate(MAX_OTHERS + 1);
    finish(joined.file, joined.summaries, joined.index)
}

struct Joined<W: Write + Send> {
    file: SerializedFileWriter<BlockWriter<W>>,
    schema: SchemaRef,
    /// Parquet's leaves and the column of each.
    leaves: Vec<ColumnDescPtr>,
    roots: Vec<usize>,
    zstd_level: i32,
    summaries: Summaries,
    /// Numbers in the index.
    streams: HashMap<StreamName, u32>,
    operations: HashMap<String, u32>,
    services: HashMap<String, u32>,
    index: SpanIndex,
}

/// A segment on its way into the file.
struct Input {
    spans: Arc<LoadedSpans>,
    metadata: ParquetMetaData,
    reader: CheckedReader,
    /// Number of its first trace in the file.
    first_trace: u32,
    /// Numbers in the file by its own.
    streams: Vec<u32>,
    operations: Vec<u32>,
    services: Vec<u32>,
    attributes: Vec<usize>,
    /// Attributes of the file without a column in it.
    lacking: Vec<String>,
}

/// A column chunk of a leaf that is not copied.
enum NewLeaf {
    Encoded(EncodedLeaf),
    Written(ArrowColumnChunk),
}

/// What a row group has instead of its own columns.
struct Moved {
    /// The leaves of the map without what moved.
    rest: Vec<NewLeaf>,
    /// The columns of [`Input::lacking`].
    own: Vec<NewLeaf>,
    /// By granule: whether the map still holds something, and which attributes of the file it got.
    granules: Vec<(bool, u64)>,
}

/// Numbers in `names` of what an input calls 0, 1, 2 …
fn numbers_of<T: Clone + Eq + Hash>(own: &[T], names: &mut Vec<T>, known: &mut HashMap<T, u32>) -> Vec<u32> {
    let number = |name: &T| {
        known.get(name).copied().unwrap_or_else(|| {
            let number = names.len() as u32;
            names.push(name.clone());
            known.insert(name.clone(), number);
            number
        })
    };
    own.iter().map(number).collect()
}

impl<W: Write + Send> Joined<W> {
    fn add(&mut self, segment: &SpanSegment) -> Result<(), SegmentError> {
        let spans = segment.load_once()?;
        let (index, own) = (&mut self.index, &spans.index);
        let place = |name: &String| index.attributes.binary_search(name).expect("BUG: it has all names");
        let input = Input {
            metadata: page_indexes(segment.file(), segment.meta())?,
            reader: spans.reader(),
            first_trace: self.summaries.hashes.len() as u32,
            attributes: own.attributes.iter().map(place).collect(),
            lacking: index.attributes.iter().filter(|name| !own.attributes.contains(name)).cloned().collect(),
            streams: numbers_of(&own.streams, &mut index.streams, &mut self.streams),
            operations: numbers_of(&own.operations, &mut index.operations, &mut self.operations),
            services: numbers_of(&own.services, &mut index.services, &mut self.services),
            spans,
        };
        let own = &input.spans.index;
        self.index.raw_bytes = self.index.raw_bytes.saturating_add(own.raw_bytes);
        self.index.others.extend_from_slice(&own.others);
        let mut start = 0;
        for of_group in input.spans.places.chunk_by(|a, b| a.group == b.group) {
            let granules = start..start + of_group.len();
            start = granules.end;
            let moved = self.row_group(&input, of_group[0].group, granules.clone())?;
            for (place, number) in granules.enumerate() {
                let moved = moved.as_ref().map(|moved| moved.granules[place]);
                self.index.granules.push(input.granule(&own.granules[number], moved));
            }
        }
        self.add_traces(&input)
    }

    /// Copies a row group. Returns what changed on the way.
    fn row_group(
        &mut self,
        input: &Input,
        group: usize,
        granules: Range<usize>,
    ) -> Result<Option<Moved>, SegmentError> {
        let mut moved = self.moved(input, group, granules.clone())?;
        let rows = granules.map(|number| input.spans.index.granules[number].rows);
        let nothing = nulls(rows);
        let (mut rest, mut own) = match &mut moved {
            Some(moved) => (std::mem::take(&mut moved.rest), std::mem::take(&mut moved.own)),
            None => (Vec::new(), Vec::new()),
        };
        let (mut rest, mut own) = (rest.drain(..), own.drain(..));
        let mut row_group = self.file.next_row_group()?;
        let mut of_input = 0;
        for (leaf, root) in self.leaves.iter().zip(&self.roots) {
            let new = match *root {
                stored::ATTRIBUTES => rest.next(),
                // The columns of attributes stand in the order of their names, here and there.
                root if root >= stored::COUNT && !input.attributes.contains(&(root - stored::COUNT)) => {
                    let of_map = own.next().map(Ok);
                    Some(
                        of_map
                            .unwrap_or_else(|| nothing.encode(leaf, self.zstd_level).map(NewLeaf::Encoded))?,
                    )
                }
                _ => None,
            };
            let lacks = *root >= stored::COUNT && new.is_some();
            match new {
                Some(new) => new.append(&mut row_group)?,
                None => {
                    // Nothing is decoded: what the reader did not refuse is a failure of the new file.
                    let close = as_it_is(&input.metadata, group, of_input);
                    row_group
                        .append_column(&input.reader, close)
                        .map_err(|error| input.reader.refusal().unwrap_or(SegmentError::Parquet(error)))?;
                }
            }
            of_input += usize::from(!lacks);
        }
        row_group.close()?;
        Ok(moved)
    }

    /// What moves from the map of a row group to columns that the input lacks; `None` when nothing does.
    fn moved(
        &self,
        input: &Input,
        group: usize,
        granules: Range<usize>,
    ) -> Result<Option<Moved>, SegmentError> {
        let spans = &input.spans;
        // The map is the first of the columns that may be empty.
        let holds = |number: usize| spans.index.granules[number].holds & 1 == 1;
        if input.lacking.is_empty() || !granules.clone().any(holds) {
            return Ok(None);
        }
        let mut rests: Vec<ArrayRef> = Vec::new();
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::new(); input.lacking.len()];
        let mut changes = Vec::new();
        for number in granules {
            let rows = std::slice::from_ref(&spans.places[number].rows);
            let read = spans.read(&input.reader, group, &[stored::ATTRIBUTES], rows)?;
            let (rest, own) = split_attributes(read.column(0).as_map(), &input.lacking)?;
            let mut got = 0;
            for ((name, column), all) in input.lacking.iter().zip(own).zip(&mut columns) {
                let bit = self.index.attributes.binary_search(name).expect("BUG: it has all names");
                got |= u64::from(!is_empty(&column)) << bit;
                all.push(column);
            }
            changes.push((!is_empty(&rest), got));
            rests.push(rest);
        }
        if changes.iter().all(|(_, got)| *got == 0) {
            return Ok(None);
        }
        let factory = ArrowRowGroupWriterFactory::new(&self.file, self.schema.clone());
        let writers = factory.create_column_writers(self.file.flushed_row_groups().len())?;
        let mut writers: Vec<Option<ArrowColumnWriter>> = writers.into_iter().map(Some).collect();
        let empty = rests.iter().all(is_empty);
        let map = empty.then(|| nulls(rests.iter().map(|rest| rest.len() as u32)));
        let rest = self.encode(stored::ATTRIBUTES, &rests, map.as_ref(), &mut writers)?;
        let mut own = Vec::new();
        for (name, arrays) in input.lacking.iter().zip(&columns) {
            let place = self.index.attributes.binary_search(name).expect("BUG: it has all names");
            let chunk = texts(arrays.iter()).map(|(dictionary, pages)| Chunk::Text(dictionary, pages));
            own.append(&mut self.encode(stored::COUNT + place, arrays, chunk.as_ref(), &mut writers)?);
        }
        Ok(Some(Moved { rest, own, granules: changes }))
    }

    /// The leaves of a column: from `chunk`, or by Parquet's writers.
    fn encode(
        &self,
        position: usize,
        arrays: &[ArrayRef],
        chunk: Option<&Chunk<'_>>,
        writers: &mut [Option<ArrowColumnWriter>],
    ) -> Result<Vec<NewLeaf>, SegmentError> {
        let first = self.roots.partition_point(|root| *root < position);
        let leaves = first..self.roots.partition_point(|root| *root <= position);
        if let Some(chunk) = chunk {
            let encode = |leaf| chunk.encode(&self.leaves[leaf], self.zstd_level).map(NewLeaf::Encoded);
            return leaves.map(encode).collect();
        }
        let mut writers: Vec<ArrowColumnWriter> =
            writers[leaves].iter_mut().filter_map(Option::take).collect();
        for array in arrays {
            let parts = compute_leaves(self.schema.field(position), array)?;
            for (writer, part) in writers.iter_mut().zip(&parts) {
                writer.write(part)?;
            }
        }
        writers.into_iter().map(|writer| Ok(NewLeaf::Written(writer.close()?))).collect()
    }

    /// Takes over the summaries.
    fn add_traces(&mut self, input: &Input) -> Result<(), SegmentError> {
        let mut hashes = input.trace_hashes()?.into_iter();
        for number in 0..input.spans.index.frames.len() {
            for mut summary in input.spans.frame(&input.reader, number)? {
                let hash = hashes.next();
                let hash = hash.ok_or_else(|| input.spans.corrupt("there are more summaries than traces"))?;
                input.renumber(&mut summary);
                self.summaries.push(hash, summary)?;
            }
        }
        match hashes.next() {
            None => Ok(()),
            Some(_) => Err(input.spans.corrupt("there are fewer summaries than traces")),
        }
    }
}

impl NewLeaf {
    fn append<W: Write + Send>(
        self,
        row_group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), SegmentError> {
        match self {
            Self::Encoded((bytes, close)) => row_group.append_column(&bytes, close)?,
            Self::Written(chunk) => chunk.append_to_row_group(row_group)?,
        }
        Ok(())
    }
}

impl Input {
    /// The index of a granule in the file.
    fn granule(&self, granule: &Granule, moved: Option<(bool, u64)>) -> Granule {
        let set = |set: &NumberSet, numbers: &[u32]| {
            let mut moved: Vec<u32> = set.iter().map(|number| numbers[number as usize]).collect();
            moved.sort_unstable();
            moved.dedup();
            NumberSet::new(&moved)
        };
        let (rest, got) = moved.unwrap_or((granule.holds & 1 == 1, 0));
        Granule {
            first_trace: granule.first_trace + self.first_trace,
            holds: granule.holds & !1 | u8::from(rest),
            streams: set(&granule.streams, &self.streams),
            operations: set(&granule.operations, &self.operations),
            values: granule.values.renumbered(&self.attributes, got),
            ..granule.clone()
        }
    }

    fn renumber(&self, summary: &mut Summary) {
        summary.root_service = self.services[summary.root_service as usize];
        summary.root_operation = self.operations[summary.root_operation as usize];
        for (service, _, _) in &mut summary.services {
            *service = self.services[*service as usize];
        }
        summary.services.sort_unstable();
    }

    /// Hash of the id of each trace by its number.
    fn trace_hashes(&self) -> Result<Vec<u64>, SegmentError> {
        let (spans, mut hashes) = (&self.spans, Vec::with_capacity(self.spans.index.traces as usize));
        let differs = || spans.corrupt("the numbers of traces do not fit the rows");
        let mut last = None;
        for (granule, place) in spans.index.granules.iter().zip(&spans.places) {
            let rows = std::slice::from_ref(&place.rows);
            let read = spans.read(&self.reader, place.group, &[stored::TRACE_ID], rows)?;
            let ids = read.column(0).as_fixed_size_binary();
            // A run may begin with the trace that the one before ends with.
            last = last.filter(|_| granule.first_trace as usize != hashes.len());
            for row in 0..ids.len() {
                let id = trace_id(ids, row);
                if last != Some(id) {
                    hashes.push(directory::hash(&id));
                    last = Some(id);
                }
                if row == 0 && hashes.len() != granule.first_trace as usize + 1 {
                    return Err(differs());
                }
            }
        }
        if hashes.len() == spans.index.traces as usize { Ok(hashes) } else { Err(differs()) }
    }
}
