//! Trace and span ids as W3C Trace Context and OTLP define them.

use std::fmt;

/// Why a text or a byte string is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    what: &'static str,
    want: usize,
    got: usize,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, want, got } = self;
        write!(f, "a {what} is {want} bytes or {} hex digits, not all zero; got length {got}", want * 2)
    }
}

impl std::error::Error for IdError {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// From raw bytes; an all-zero id is invalid.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
                let err = IdError { what: $what, want: $len, got: bytes.len() };
                let id: [u8; $len] = bytes.try_into().map_err(|_| err.clone())?;
                if id == [0; $len] { Err(err) } else { Ok(Self(id)) }
            }

            /// From hex digits of either case; an all-zero id is invalid.
            pub fn from_hex(text: &[u8]) -> Result<Self, IdError> {
                let err = IdError { what: $what, want: $len, got: text.len() };
                if text.len() != $len * 2 {
                    return Err(err);
                }
                let mut id = [0u8; $len];
                for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
                    let (Some(high), Some(low)) = (hex_digit(pair[0]), hex_digit(pair[1])) else {
                        return Err(err);
                    };
                    *byte = high << 4 | low;
                }
                if id == [0; $len] { Err(err) } else { Ok(Self(id)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::from_hex(text.as_bytes())
            }
        }
    };
}

id!(
    /// 16 bytes that name one trace.
    TraceId, 16, "trace id"
);
id!(
    /// 8 bytes that name one span of a trace.
    SpanId, 8, "span id"
);

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_in_either_case() {
        let text = "49a51828322183EB20bfe4ace3060000";
        let id: TraceId = text.parse().unwrap();
        assert_eq!(id.to_string(), text.to_lowercase());
        assert_eq!(TraceId::from_bytes(&id.0), Ok(id));
    }

    #[test]
    fn wrong_length_wrong_digit_and_zero_are_refused() {
        for text in ["", "49a5", "zz", "0000000000000000", "083e5d40259e799g"] {
            assert!(text.parse::<SpanId>().is_err(), "{text} was taken");
        }
        let message = SpanId::from_hex(b"49a5").unwrap_err().to_string();
        assert_eq!(message, "a span id is 8 bytes or 16 hex digits, not all zero; got length 4");
    }
}
