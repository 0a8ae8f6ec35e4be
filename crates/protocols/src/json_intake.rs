//! What the decoders of JSON requests share: records that stand in an array.

use trine_schema::LogBatchBuilder;

use crate::{
    DecodeError,
    intake::{Fault, Intake, Reason, Rows},
    json::Json,
};

/// A JSON request on its way into a batch.
pub(crate) struct JsonIntake<'r, B = LogBatchBuilder> {
    pub(crate) intake: Intake<'r, B>,
    /// For values with escapes; reused.
    pub(crate) buffer: String,
    /// For names with escapes; reused.
    pub(crate) key_buffer: String,
}

impl<'r, B: Rows> JsonIntake<'r, B> {
    pub(crate) fn new(intake: Intake<'r, B>) -> Self {
        Self { intake, buffer: String::new(), key_buffer: String::new() }
    }

    /// Reads the array that is next by `record`. One that is at fault is rejected alone.
    pub(crate) fn each_record<'a>(
        &mut self,
        json: &mut Json<'a>,
        mut record: impl FnMut(&mut Self, &mut Json<'a>) -> Result<(), Fault>,
    ) -> Result<(), DecodeError> {
        json.each(|json| {
            self.intake.begin()?;
            let start = json.position();
            let outcome = record(self, json);
            if let Err(Fault::Record(_)) = outcome {
                // Whatever was read of it, the next record begins after its end.
                json.rewind(start);
                json.skip()?;
            }
            self.intake.settle(outcome)
        })
    }

    /// Rejects all records of the array that is next.
    pub(crate) fn refuse(&mut self, json: &mut Json<'_>, reason: Reason) -> Result<(), DecodeError> {
        let mut records = 0;
        json.each(|json| {
            records += 1;
            json.skip()
        })?;
        self.intake.reject_all(records, reason)
    }
}
