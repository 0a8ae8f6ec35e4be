//! Which field of a line means what.

/// Most names one parameter may list.
const MAX_NAMES: usize = 64;

/// Which fields of a line hold what. Nested fields are named with dots (`kubernetes.pod`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNames {
    /// Time, by falling preference.
    pub time: Vec<String>,
    /// The line, by falling preference.
    pub message: Vec<String>,
    /// Severity word, by falling preference.
    pub level: Vec<String>,
    /// Trace id in hex, by falling preference.
    pub trace_id: Vec<String>,
    /// Span id in hex, by falling preference.
    pub span_id: Vec<String>,
    /// Fields that become labels of the stream, those that a line has.
    pub stream: Vec<String>,
}

/// A query parameter cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldNamesError {
    /// Too many names in one parameter.
    #[error("parameter {parameter:?} names more than {limit} fields; name fewer")]
    TooMany {
        /// Name of the parameter.
        parameter: String,
        /// The bound.
        limit: usize,
    },
}

impl FieldNames {
    /// From query parameters, already percent-decoded; unknown ones are left to others.
    ///
    /// | parameter (aliases) | default |
    /// |---|---|
    /// | `time` (`_time_field`, `time_field`) | `_time,timestamp,ts,time,@timestamp` |
    /// | `message` (`_msg_field`, `msg_field`, `message_field`) | `_msg,message,msg,log,body` |
    /// | `level` (`_level_field`, `level_field`) | `level,severity,lvl` |
    /// | `trace_id` (`trace_id_field`) | `trace_id,traceid,traceId,traceID,trace.id` |
    /// | `span_id` (`span_id_field`) | `span_id,spanid,spanId,spanID,span.id` |
    /// | `stream` (`_stream_fields`, `stream_fields`) | `service.name,service_name,service,app` |
    ///
    /// Values are comma lists; an empty one means none. A list for time, message, level or an id
    /// is tried in its order.
    pub fn from_query<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldNamesError> {
        let mut fields = Self::default();
        for (parameter, value) in pairs {
            let list = match parameter {
                "time" | "_time_field" | "time_field" => &mut fields.time,
                "message" | "_msg_field" | "msg_field" | "message_field" => &mut fields.message,
                "level" | "_level_field" | "level_field" => &mut fields.level,
                "trace_id" | "trace_id_field" => &mut fields.trace_id,
                "span_id" | "span_id_field" => &mut fields.span_id,
                "stream" | "_stream_fields" | "stream_fields" => &mut fields.stream,
                _ => continue,
            };
            let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
            *list = names.take(MAX_NAMES + 1).map(str::to_owned).collect();
            if list.len() > MAX_NAMES {
                return Err(FieldNamesError::TooMany { parameter: parameter.to_owned(), limit: MAX_NAMES });
            }
        }
        Ok(fields)
    }

    /// What a field of this name is.
    pub(super) fn role(&self, name: &str) -> Role {
        let stream = self.stream.iter().any(|field| field == name);
        for kind in Kind::ALL {
            let names = match kind {
                Kind::Time => &self.time,
                Kind::Message => &self.message,
                Kind::Level => &self.level,
                Kind::TraceId => &self.trace_id,
                Kind::SpanId => &self.span_id,
            };
            if let Some(rank) = names.iter().position(|field| field == name) {
                return Role { kind: Some((kind, rank)), stream };
            }
        }
        Role { kind: None, stream }
    }
}

impl Default for FieldNames {
    fn default() -> Self {
        let names = |list: &str| list.split(',').map(str::to_owned).collect();
        Self {
            time: names("_time,timestamp,ts,time,@timestamp"),
            message: names("_msg,message,msg,log,body"),
            level: names("level,severity,lvl"),
            trace_id: names("trace_id,traceid,traceId,traceID,trace.id"),
            span_id: names("span_id,spanid,spanId,spanID,span.id"),
            stream: names("service.name,service_name,service,app"),
        }
    }
}

/// Fields of which a line uses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Time,
    Message,
    Level,
    TraceId,
    SpanId,
}

impl Kind {
    pub(super) const COUNT: usize = 5;
    const ALL: [Self; Self::COUNT] = [Self::Time, Self::Message, Self::Level, Self::TraceId, Self::SpanId];
}

/// What a field is, by its name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Role {
    /// Kind, and rank among the kind's names.
    pub(super) kind: Option<(Kind, usize)>,
    stream: bool,
}

impl Role {
    pub(super) fn is_stream(self) -> bool {
        self.stream
    }
}
