//! Content encodings: round trips, broken bytes, bombs.

use std::io::Write as _;

use trine_protocols::{Compression, DecodeError, Limits};

/// Unpacks into a buffer that still holds something else.
fn decompress(compression: Compression, body: &[u8], limits: &Limits) -> Result<Vec<u8>, DecodeError> {
    let mut buffer = vec![0xaa; 300];
    trine_protocols::decompress(compression, body, limits, &mut buffer).map(<[u8]>::to_vec)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

type Encoder = fn(&[u8]) -> Vec<u8>;
const ENCODERS: [(&str, Encoder); 5] = [
    ("identity", <[u8]>::to_vec),
    ("GZIP", gzip),
    ("deflate", deflate),
    (" zstd ", zstd),
    ("snappy", snappy),
];

#[test]
fn every_encoding_comes_back_and_keeps_the_bound_to_the_byte() {
    let plain: Vec<u8> = (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    for (name, encode) in ENCODERS {
        let compression = Compression::from_content_encoding(name).unwrap();
        let coded = encode(&plain);
        let limits = |max_body_bytes| Limits { max_body_bytes, ..Limits::default() };
        assert_eq!(decompress(compression, &coded, &limits(plain.len())).unwrap(), &plain[..], "{name}");
        let limit = plain.len() - 1;
        assert_eq!(
            decompress(compression, &coded, &limits(limit)),
            Err(DecodeError::TooLarge { limit }),
            "{name}"
        );
    }
}

#[test]
fn several_members_or_frames_are_one_body() {
    for (name, encode) in [("gzip", gzip as Encoder), ("zstd", zstd)] {
        let coded = [encode(b"one "), encode(b"two")].concat();
        let compression = Compression::from_content_encoding(name).unwrap();
        assert_eq!(decompress(compression, &coded, &Limits::default()).unwrap(), &b"one two"[..]);
    }
}

#[test]
fn truncated_and_flipped_bytes_are_refused_or_harmless() {
    let plain: Vec<u8> = (0..500u32).flat_map(u32::to_le_bytes).collect();
    for (name, encode) in &ENCODERS[1..] {
        let compression = Compression::from_content_encoding(name).unwrap();
        let coded = encode(&plain);
        for end in 1..coded.len() {
            assert!(
                decompress(compression, &coded[..end], &Limits::default()).is_err(),
                "{name} cut at {end}"
            );
        }
        for at in 0..coded.len() {
            let mut broken = coded.clone();
            broken[at] ^= 0x55;
            // Not all formats have a checksum; it must only end.
            let _ = decompress(compression, &broken, &Limits::default());
        }
    }
}

#[test]
fn what_follows_the_end_of_gzip_is_told() {
    let coded = [gzip(b"whole"), vec![1, 2, 3]].concat();
    let error = decompress(Compression::Gzip, &coded, &Limits::default()).unwrap_err();
    let told = "the body is not valid gzip: it is cut off, or something else follows its end";
    assert_eq!(error.to_string(), told);
}

/// 1 GiB of zeros is refused by a bound of 1 MiB after about that much work.
#[test]
fn bombs_are_refused() {
    let limits = Limits { max_body_bytes: 1 << 20, ..Limits::default() };
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 100_000);
    assert_eq!(decompress(Compression::Zstd, &bomb, &limits), Err(DecodeError::TooLarge { limit: 1 << 20 }));

    // A snappy block that announces 4 GiB, and one that announces more than its bytes can hold.
    let liar = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    assert_eq!(
        decompress(Compression::Snappy, &liar, &limits),
        Err(DecodeError::TooLarge { limit: 1 << 20 })
    );
    let error = decompress(Compression::Snappy, &[0x80, 0x80, 0x20, 0], &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the body is not valid snappy: 4 bytes cannot hold the 524288 bytes they announce"
    );
}

#[test]
fn unknown_encodings_are_named() {
    let error = Compression::from_content_encoding("br").unwrap_err();
    assert_eq!(
        error.to_string(),
        "content encoding \"br\" is not supported; use gzip, zstd, snappy, deflate or identity"
    );
    assert_eq!(error.http_status(), 415);
}
