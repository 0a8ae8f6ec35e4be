//! `ip("...")`: one address, a range or a CIDR block, of either version.

use std::net::IpAddr;

/// A compiled pattern: addresses from the first to the last, both included.
#[derive(Debug, Clone, Copy)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let bad = || {
            let shown = crate::lexer::shorten(pattern);
            format!("invalid ip pattern {shown:?}; write 10.0.0.1, 10.0.0.1-10.0.0.9 or 10.0.0.0/8")
        };
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| bad());
        if let Some((first, last)) = pattern.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            return if first.is_ipv4() == last.is_ipv4() { Ok(Self { first, last }) } else { Err(bad()) };
        }
        let Some((network, bits)) = pattern.split_once('/') else {
            let first = address(pattern)?;
            return Ok(Self { first, last: first });
        };
        let bits: u32 = bits.parse().map_err(|_| bad())?;
        match address(network)? {
            IpAddr::V4(v4) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                let first = v4.to_bits() & mask;
                Ok(Self { first: IpAddr::V4(first.into()), last: IpAddr::V4((first | !mask).into()) })
            }
            IpAddr::V6(v6) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                let first = v6.to_bits() & mask;
                Ok(Self { first: IpAddr::V6(first.into()), last: IpAddr::V6((first | !mask).into()) })
            }
            _ => Err(bad()),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether the text is an address in the range; `None` when it is no address.
    pub fn matches_value(&self, text: &str) -> Option<bool> {
        text.trim().parse().ok().map(|address| self.contains(address))
    }

    /// Whether an address in the range stands anywhere in the line.
    pub fn matches_line(&self, line: &str) -> bool {
        let word = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
        line.split(|c| !word(c)).filter(|text| text.len() > 1).any(|text| {
            let text = text.trim_end_matches(['.', ':']);
            // `10.0.0.1:80` is an address and a port.
            let without_port = text.rsplit_once(':').map_or(text, |(address, _)| address);
            [text, without_port].iter().any(|text| text.parse().is_ok_and(|address| self.contains(address)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_lines() {
        let has = |pattern: &str, line: &str| IpRange::new(pattern).unwrap().matches_line(line);
        assert!(has("3.180.71.3", "3.180.71.3 - - GET"));
        assert!(!has("3.180.71.3", "93.180.71.3 - - GET"));
        assert!(has("192.168.4.5/16", "from 192.168.250.1:8080."));
        assert!(has("192.168.4.5-192.168.4.20", "[192.168.4.20]"));
        assert!(!has("192.168.4.5-192.168.4.20", "192.168.4.21"));
        assert!(has("2001:db8::/32", "peer 2001:db8::7 up"));
        assert!(has("0.0.0.0/0", "1.2.3.4"));
        assert!(IpRange::new("1.2.3.4/33").is_err());
        assert!(IpRange::new("nonsense").is_err());
    }
}
