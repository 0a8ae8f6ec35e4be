//! Content encodings, decompressed under a bound.
//!
//! A bomb is refused before its memory is taken: output grows in steps while it is read, and stops
//! one byte past the bound. Snappy blocks state their length up front, so that is checked first.

use std::io::Read;

use crate::{DecodeError, Limits};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `identity` or no header.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The snappy block format, as Loki and Prometheus use it (not the framed one).
    Snappy,
    /// RFC 1950, zlib; what HTTP calls `deflate`.
    Deflate,
}

impl Compression {
    /// From a `Content-Encoding` value; empty means none.
    pub fn from_content_encoding(text: &str) -> Result<Self, DecodeError> {
        const NAMES: [(&str, Compression); 7] = [
            ("", Compression::None),
            ("identity", Compression::None),
            ("gzip", Compression::Gzip),
            ("x-gzip", Compression::Gzip),
            ("zstd", Compression::Zstd),
            ("snappy", Compression::Snappy),
            ("deflate", Compression::Deflate),
        ];
        let text = text.trim();
        NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, compression)| *compression)
            .ok_or_else(|| DecodeError::UnknownEncoding(text.chars().take(100).collect()))
    }
}

/// Largest output buffer that is reserved before anything is read, in bytes.
const MAX_FIRST_RESERVE: usize = 4 << 20;

/// Largest window a zstd frame may ask for, as a power of two: 2^27 is what `zstd --long` writes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The plain bytes of a body. At most [`Limits::max_body_bytes`], else [`DecodeError::TooLarge`].
///
/// What is unpacked goes into `buffer`, whose content does not matter: a caller that keeps it spares
/// fresh memory for every body.
pub fn decompress<'a>(
    compression: Compression,
    body: &'a [u8],
    limits: &Limits,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], DecodeError> {
    let broken =
        |algorithm| move |e: std::io::Error| DecodeError::Compression { algorithm, reason: e.to_string() };
    let too_large = DecodeError::TooLarge { limit: limits.max_body_bytes };
    match compression {
        Compression::None if body.len() > limits.max_body_bytes => Err(too_large),
        Compression::None => Ok(body),
        Compression::Gzip => {
            let decoder = flate2::bufread::MultiGzDecoder::new(body);
            let broken = |error: std::io::Error| match error.kind() {
                // What follows the end is read as the head of another member.
                std::io::ErrorKind::UnexpectedEof => DecodeError::Compression {
                    algorithm: "gzip",
                    reason: "it is cut off, or something else follows its end".into(),
                },
                _ => broken("gzip")(error),
            };
            read_bounded(decoder, body.len(), limits, buffer, broken)
        }
        Compression::Deflate => {
            let decoder = flate2::bufread::ZlibDecoder::new(body);
            read_bounded(decoder, body.len(), limits, buffer, broken("deflate"))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken("zstd"))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken("zstd"))?;
            read_bounded(decoder, body.len(), limits, buffer, broken("zstd"))
        }
        Compression::Snappy => {
            let broken =
                |e: snap::Error| DecodeError::Compression { algorithm: "snappy", reason: e.to_string() };
            let length = snap::raw::decompress_len(body).map_err(broken)?;
            if length > limits.max_body_bytes {
                return Err(too_large);
            }
            // A snappy element of 3 bytes yields at most 64; a longer claim is a lie.
            if length / 64 > body.len() {
                let reason = format!("{} bytes cannot hold the {length} bytes they announce", body.len());
                return Err(DecodeError::Compression { algorithm: "snappy", reason });
            }
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            let plain = &mut buffer[..length];
            snap::raw::Decoder::new().decompress(body, plain).map_err(broken)?;
            Ok(plain)
        }
    }
}

fn read_bounded<'a>(
    reader: impl Read,
    compressed: usize,
    limits: &Limits,
    buffer: &'a mut Vec<u8>,
    broken: impl FnOnce(std::io::Error) -> DecodeError,
) -> Result<&'a [u8], DecodeError> {
    let guess = compressed.saturating_mul(8).min(MAX_FIRST_RESERVE).min(limits.max_body_bytes);
    buffer.clear();
    buffer.reserve(guess + 1);
    reader.take(limits.max_body_bytes as u64 + 1).read_to_end(buffer).map_err(broken)?;
    if buffer.len() > limits.max_body_bytes {
        return Err(DecodeError::TooLarge { limit: limits.max_body_bytes });
    }
    Ok(buffer)
}
