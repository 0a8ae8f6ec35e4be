//! Lines for the tests: made up, hostile, and real ones where the data is at hand.

use std::path::Path;

/// A small deterministic random source (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Lines like those of real systems: times, ids that repeat, addresses, user names, odd numbers.
pub fn made_up(count: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let ids: Vec<u64> = (0..200).map(|_| random.next()).collect();
    let names = ["root", "alice", "bob", "mallory", "zoë", "x", "www-data"];
    let mut clock = 40_000_000u64;
    let mut lines = Vec::new();
    for i in 0..count {
        clock += random.next() % 2000;
        let (h, m, s, ms) = (clock / 3_600_000 % 24, clock / 60_000 % 60, clock / 1000 % 60, clock % 1000);
        let time = format!("2026-11-{:02} {h:02}:{m:02}:{s:02},{ms:03}", 1 + clock / 86_400_000 % 28);
        let id = *random.pick(&ids);
        let n = random.next();
        let line = match random.below(14) {
            0 => format!(
                "{time} INFO dfs.DataNode: Received block blk_{} of size {} from /10.251.{}.{}",
                id as i64,
                n >> 38,
                n % 256,
                id % 256
            ),
            1 => format!(
                "{time} INFO dfs.DataNode: PacketResponder {} for block blk_{} terminating",
                n % 3,
                id as i64
            ),
            2 => format!(
                "{time} WARN [req-{:08x}-{:04x} - -] GET /v2/{:016x}/servers status: {} len: {}",
                id as u32,
                n as u16,
                id,
                200 + n % 5,
                n % 1893
            ),
            3 => format!("session opened for user {} by (uid={})", random.pick(&names), n % 4),
            4 => format!("session opened for user {:x}q by (uid={})", n, n % 4),
            5 => format!(
                "boot = {}, init = {}, total={:.3}",
                n as i64 % 100,
                id as i64 % 7,
                (n % 10_000) as f64 / 7.0
            ),
            6 => format!("mask 0x{:X} at 0x{:08x}; seq {i:06}", n >> 40, id as u32),
            7 => format!("größe {} µs\t{}%", n % 1000, n % 100),
            8 => String::new(),
            9 => format!("{}", n >> random.below(64)),
            10 => format!("{:0w$}", n >> 50, w = 1 + random.below(20)),
            11 => "plain text without any variable".to_owned(),
            12 => format!(
                "trailing 12. and 7_ list {},{},{}: 1/{}/3 99999999999999999999{}",
                n % 5,
                n % 7,
                n % 9,
                n % 3,
                n % 10
            ),
            _ => format!("v{}.{}.{} {}", n % 3, id % 9, n % 20, "word ".repeat(n as usize % 5)),
        };
        lines.push(line.into_bytes());
    }
    lines
}

/// Lines of few bytes out of those that the format treats in a special way.
pub fn hostile(count: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let bytes = b"\0\0\x01\x0201a9fAFgZ  ..--__::,,//=[]\xc3\xa9\xff\n";
    (0..count).map(|_| (0..random.below(24)).map(|_| *random.pick(bytes)).collect()).collect()
}

/// Lines of the sixteen systems; nothing, with a message, when the archive is not there.
pub fn real() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/loghub_2k.tar.zst");
    let Ok(packed) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return Vec::new();
    };
    let tar = zstd::decode_all(packed.as_slice()).expect("the archive can be unpacked");
    let (mut lines, mut at) = (Vec::new(), 0);
    // A tar entry: a header of 512 bytes with an octal size at 124, then the file, padded to 512.
    while at + 512 <= tar.len() && tar[at] != 0 {
        let octal = std::str::from_utf8(&tar[at + 124..at + 135]).expect("sizes are octal digits");
        let size = usize::from_str_radix(octal.trim_matches(['\0', ' ']), 8).expect("sizes are octal");
        let file = &tar[at + 512..at + 512 + size];
        if tar[at..at + 100].windows(7).any(|name| name == b"_2k.log") {
            lines.extend(
                file.split(|&byte| byte == b'\n')
                    .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec()),
            );
        }
        at += 512 + size.next_multiple_of(512);
    }
    assert!(lines.len() > 30_000, "the archive holds sixteen times 2,000 lines, not {}", lines.len());
    lines
}
