//! Parameters of Jaeger's `/api/traces`
//! (<https://www.jaegertracing.io/docs/latest/architecture/apis/#internal-http-json>).

use std::ops::RangeInclusive;

use trine_model::TraceId;

use crate::{
    api::ordered,
    jaeger::KINDS,
    parameters::{ParameterError, Parameters, Unit, parse_duration},
    parse_trace_id,
    search::{Condition, MAX_CONDITIONS, Search, TagPlace},
    status,
};

/// Traces that are returned when no `limit` is given, as in Jaeger.
const DEFAULT_LIMIT: usize = 100;

/// Most traces of one answer; each is sent whole.
const MAX_LIMIT: usize = 1_500;

/// Most traces that may be named with `traceID`.
const MAX_IDS: usize = 200;

/// What `/api/traces` asks for.
#[derive(Debug, Clone)]
pub(crate) enum JaegerQuery {
    /// `traceID`, which may repeat.
    Ids(Vec<TraceId>),
    /// Everything else.
    Search(Search),
}

impl JaegerQuery {
    /// `now` in nanoseconds since 1970 is the end when none is given.
    pub(crate) fn parse(parameters: &Parameters<'_>, now: i64) -> Result<Self, ParameterError> {
        let mut ids = Vec::new();
        for text in parameters.all("traceID") {
            if ids.len() == MAX_IDS {
                return Err(ParameterError::new(
                    "traceID",
                    text,
                    format!("is one of more than {MAX_IDS}; ask in parts"),
                ));
            }
            let id = parse_trace_id(text);
            ids.push(id.map_err(|_| {
                ParameterError::new("traceID", text, "is no trace id; give 1 to 32 hex digits")
            })?);
        }
        if !ids.is_empty() {
            return Ok(Self::Ids(ids));
        }
        let service = parameters.get("service").ok_or_else(|| {
            ParameterError::new("service", "", "is missing; name a service, or traces with traceID")
        })?;
        let mut conditions = vec![Condition::Service(service.to_owned())];
        conditions.extend(parameters.get("operation").map(|name| Condition::Operation(name.to_owned())));
        if let Some(kind) = span_kind(parameters)? {
            conditions.push(Condition::Kind(kind));
        }
        let least = parameters.duration("minDuration")?.unwrap_or(i64::MIN);
        let most = parameters.duration("maxDuration")?.unwrap_or(i64::MAX);
        if least > most {
            let text = parameters.get("maxDuration").unwrap_or_default();
            return Err(ParameterError::new("maxDuration", text, "is shorter than minDuration; swap them"));
        }
        if (least, most) != (i64::MIN, i64::MAX) {
            conditions.push(Condition::Duration(least..=most));
        }
        for text in parameters.all("tags") {
            conditions.extend(tags(text)?);
        }
        for text in parameters.all("tag") {
            let (key, value) = text
                .split_once(':')
                .ok_or_else(|| ParameterError::new("tag", text, "is no pair; write key:value"))?;
            conditions.push(condition(key, value));
        }
        if conditions.len() > MAX_CONDITIONS {
            let problem = format!("is one of more than {MAX_CONDITIONS} conditions; give fewer tags");
            let tag = parameters.get("tag").or(parameters.get("tags")).unwrap_or_default();
            return Err(ParameterError::new("tag", tag, problem));
        }
        Ok(Self::Search(Search {
            range: range(parameters, now)?,
            conditions,
            trace_duration: i64::MIN..=i64::MAX,
            limit: parameters.limit("limit", MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT),
            whole: true,
        }))
    }
}

/// `start` and `end` in microseconds; without a start `lookback` before the end, else all.
fn range(parameters: &Parameters<'_>, now: i64) -> Result<RangeInclusive<i64>, ParameterError> {
    let last = parameters.time("end", Unit::Microseconds)?.unwrap_or(now);
    let start = match (parameters.time("start", Unit::Microseconds)?, parameters.get("lookback")) {
        (Some(start), _) => start,
        (None, None | Some("custom")) => i64::MIN,
        (None, Some(text)) => {
            let problem = "is no duration; give a text such as 1h, 30m or 2d";
            last.saturating_sub(lookback(text).ok_or_else(|| ParameterError::new("lookback", text, problem))?)
        }
    };
    // An end in microseconds stands for all of that microsecond.
    ordered(start, last.saturating_add(999))
}

/// The UI's durations, which know days.
fn lookback(text: &str) -> Option<i64> {
    match text.strip_suffix('d') {
        Some(days) => {
            days.parse::<u32>().ok().and_then(|days| i64::from(days).checked_mul(86_400_000_000_000))
        }
        None => parse_duration(text),
    }
}

/// `spanKind`: a kind by name.
pub(crate) fn span_kind(parameters: &Parameters<'_>) -> Result<Option<u8>, ParameterError> {
    let Some(name) = parameters.get("spanKind") else { return Ok(None) };
    let problem = "is no kind of span; give internal, server, client, producer or consumer";
    kind_of(name).map(Some).ok_or_else(|| ParameterError::new("spanKind", name, problem))
}

fn kind_of(name: &str) -> Option<u8> {
    KINDS.iter().find(|(_, known)| name.eq_ignore_ascii_case(known)).map(|(kind, _)| *kind)
}

/// `{"error":"true","http.status_code":"500"}`.
fn tags(text: &str) -> Result<Vec<Condition>, ParameterError> {
    let bad = |problem: String| ParameterError::new("tags", text, problem);
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| bad(format!("is no JSON object such as {{\"error\":\"true\"}}: {error}")))?;
    let one = |(key, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(value) => Ok(condition(&key, &value)),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Ok(condition(&key, &value.to_string())),
        _ => Err(bad(format!("has {key:?} with a value that is no text, number or boolean"))),
    };
    object.into_iter().map(one).collect()
}

/// A tag; some are no attributes here.
fn condition(key: &str, value: &str) -> Condition {
    let tag = || Condition::Tag { place: TagPlace::Any, key: key.to_owned(), value: value.to_owned() };
    match key {
        "error" if value == "true" => Condition::Status(status::ERROR),
        "otel.status_code" => match value.to_ascii_uppercase().as_str() {
            "OK" => Condition::Status(status::OK),
            "ERROR" => Condition::Status(status::ERROR),
            _ => tag(),
        },
        "span.kind" => kind_of(value).map_or_else(tag, Condition::Kind),
        _ => tag(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<JaegerQuery, String> {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        JaegerQuery::parse(&Parameters::new(&pairs), 5_000_000_000_000).map_err(|error| error.to_string())
    }

    #[test]
    fn a_search_as_the_ui_sends_it() {
        let query = parse(&[
            ("end", "3000000000"),
            ("lookback", "1h"),
            ("service", "cart"),
            ("operation", "GET /"),
            ("minDuration", "1.2s"),
            ("maxDuration", ""),
            ("tags", r#"{"error":"true","http.status_code":500,"span.kind":"server","x":"y"}"#),
            ("tag", "a:b:c"),
            ("limit", "7"),
        ]);
        let Ok(JaegerQuery::Search(search)) = query else { panic!("{query:?}") };
        let tag = |key: &str, value: &str| Condition::Tag {
            place: TagPlace::Any,
            key: key.into(),
            value: value.into(),
        };
        assert_eq!(search.range, -600_000_000_000..=3_000_000_000_999);
        assert_eq!(search.limit, 7);
        assert_eq!(
            search.conditions,
            [
                Condition::Service("cart".into()),
                Condition::Operation("GET /".into()),
                Condition::Duration(1_200_000_000..=i64::MAX),
                Condition::Status(2),
                tag("http.status_code", "500"),
                Condition::Kind(2),
                tag("x", "y"),
                tag("a", "b:c"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (pairs, want) in [
            (vec![], "service=\"\" is missing; name a service, or traces with traceID"),
            (vec![("traceID", "xyz")], "traceID=\"xyz\" is no trace id; give 1 to 32 hex digits"),
            (vec![("service", "a"), ("tag", "b")], "tag=\"b\" is no pair; write key:value"),
            (
                vec![("service", "a"), ("lookback", "long")],
                "lookback=\"long\" is no duration; give a text such as 1h, 30m or 2d",
            ),
            (vec![("service", "a"), ("limit", "2000")], "limit=\"2000\" is no whole number from 1 to 1500"),
            (
                vec![("service", "a"), ("spanKind", "x")],
                "spanKind=\"x\" is no kind of span; give internal, server, client, producer or consumer",
            ),
            (
                vec![("service", "a"), ("minDuration", "2s"), ("maxDuration", "1s")],
                "maxDuration=\"1s\" is shorter than minDuration; swap them",
            ),
            (
                vec![("service", "a"), ("start", "9"), ("end", "1")],
                "start=\"9000\" lies after end; swap them",
            ),
        ] {
            assert_eq!(parse(&pairs).unwrap_err(), want);
        }
        let error = parse(&[("service", "a"), ("tags", "[1]")]).unwrap_err();
        assert!(
            error.starts_with("tags=\"[1]\" is no JSON object such as {\"error\":\"true\"}: "),
            "{error}"
        );
    }
}
