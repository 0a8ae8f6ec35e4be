//! Checking a whole segment of spans: every block, the root, and the index against the rows.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch},
    compute::{max, min},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use hashbrown::HashMap;
use trine_schema::{columns::attributes_of, spans::column};

use super::{
    SpanSegment,
    columns::stored,
    directory,
    index::Granule,
    read::{LoadedSpans, Texts},
    summary::{Summaries, decode_frame},
    values,
};
use crate::{
    SegmentError,
    verify::{on_pool, verify_blocks},
    write::stream_refs,
};

impl SpanSegment {
    /// Checks every block, the root, and the index and the summaries against the rows. Runs on a thread of
    /// the scan pool.
    pub async fn verify(self: &Arc<Self>) -> Result<(), SegmentError> {
        let segment = self.clone();
        on_pool(move || {
            verify_blocks(segment.file(), segment.meta())?;
            segment.load_once()?.check()
        })
        .await
    }
}

impl LoadedSpans {
    fn check(&self) -> Result<(), SegmentError> {
        // Summaries are made again from the rows and compared with those of the file.
        let mut again = Summaries::default();
        let numbers =
            |names: &'_ [String]| -> HashMap<String, u32> { names.iter().cloned().zip(0..).collect() };
        let (services, operations) = (numbers(&self.index.services), numbers(&self.index.operations));
        let of = |numbers: &HashMap<String, u32>, name: &str| numbers.get(name).copied().unwrap_or(u32::MAX);
        for (number, granule) in self.index.granules.iter().enumerate() {
            let batch = self.granule(number)?;
            self.check_granule(number, granule, &batch)?;
            // Another tenant or run, whose first trace may have the id of the last one.
            if granule.first_trace as usize == again.hashes.len() {
                again.end_trace();
            }
            let names = batch.column(column::OPERATION).as_string::<i32>();
            let (reader, place) = (self.reader(), &self.places[number]);
            let read =
                self.read(&reader, place.group, &[stored::SERVICE], std::slice::from_ref(&place.rows))?;
            let of_rows = Texts::of(read.column(0));
            let first = again.add(&batch, |row| {
                (of(&services, of_rows.get(row).unwrap_or("")), of(&operations, names.value(row)))
            })?;
            if first != granule.first_trace {
                return Err(self.differs(number, "the number of its first trace"));
            }
        }
        again.end_frame()?;
        if again.hashes.len() != self.index.traces as usize {
            return Err(self.corrupt("the index names another number of traces"));
        }
        self.check_traces(&again)
    }

    /// Summaries and table of traces against those made from the rows.
    fn check_traces(&self, again: &Summaries) -> Result<(), SegmentError> {
        let reader = self.reader();
        let mut start = 0;
        for (number, end) in again.ends.iter().enumerate() {
            let made = decode_frame(&again.frames[start..*end as usize], &self.index);
            let made = made.map_err(|bad| self.corrupt(&format!("{} cannot be made again", bad.0)))?;
            if self.frame(&reader, number)? != made {
                return Err(self.corrupt(&format!("the summaries of frame {number} do not fit the rows")));
            }
            start = *end as usize;
        }
        let (directory, table) = directory::encode(&again.hashes, self.index.directory.offset);
        if directory != self.index.directory || reader.read(directory.range())? != table {
            return Err(self.corrupt("the table of traces does not fit the rows"));
        }
        Ok(())
    }

    fn differs(&self, number: usize, what: &str) -> SegmentError {
        self.corrupt(&format!("the index does not fit granule {number}: {what}"))
    }

    /// The index of a granule against its rows.
    fn check_granule(
        &self,
        number: usize,
        granule: &Granule,
        batch: &RecordBatch,
    ) -> Result<(), SegmentError> {
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        if (min(times), max(times)) != (Some(granule.min), Some(granule.max)) {
            return Err(self.differs(number, "its times"));
        }
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>();
        if (min(durations), max(durations)) != (Some(granule.shortest), Some(granule.longest)) {
            return Err(self.differs(number, "its durations"));
        }
        let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        if codes.iter().fold(0, |all, code| all | 1 << code.min(&7)) != granule.statuses {
            return Err(self.differs(number, "its status codes"));
        }
        let once = |mut numbers: Vec<u32>| {
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let known = granule.streams.iter().map(|stream| self.streams[stream as usize]).collect();
        if once(stream_refs(batch).to_vec()) != once(known) {
            return Err(self.differs(number, "its streams"));
        }
        let names = batch.column(column::OPERATION).as_string::<i32>();
        let mut found: Vec<&str> = names.iter().flatten().collect();
        found.sort_unstable();
        found.dedup();
        let known = granule.operations.iter().map(|number| self.index.operations[number as usize].as_str());
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        if found != known {
            return Err(self.differs(number, "its operations"));
        }
        let map = batch.column(column::ATTRIBUTES).as_map();
        for row in 0..batch.num_rows() {
            for (at, name) in self.index.attributes.iter().enumerate() {
                let first = attributes_of(map, row).find(|(key, _)| key == name);
                if first
                    .is_some_and(|(_, v)| !granule.values.may_contain(at, values::hash(name, v.as_bytes())))
                {
                    return Err(self.differs(number, "the filter denies a value"));
                }
            }
        }
        Ok(())
    }
}
