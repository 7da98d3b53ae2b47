use std::fmt;
use std::str::FromStr;

/// A PCI address: domain, bus, device, function.
///
/// ```
/// use doorbell::vfio::Bdf;
///
/// let bdf: Bdf = "01:00.0".parse()?;
/// assert_eq!(bdf.to_string(), "0000:01:00.0");
/// assert!("01:00.8".parse::<Bdf>().is_err());
/// # Ok::<(), doorbell::vfio::InvalidBdf>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Domain (segment).
    pub domain: u32,
    /// Bus, 0 to 255.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// Not a PCI address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a PCI address: write it as lspci -D does, 0000:01:00.0 (domain:bus:device.function, hexadecimal)"
)]
pub struct InvalidBdf(pub String);

fn hex(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let fits = len.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Bdf {
    type Err = InvalidBdf;

    fn from_str(text: &str) -> Result<Bdf, InvalidBdf> {
        let parse = || {
            let (domain, rest) = match text.matches(':').count() {
                1 => (0, text),
                _ => text.split_once(':').and_then(|(d, rest)| Some((hex(d, 4..=8)?, rest)))?,
            };
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let device = hex(device, 1..=2).filter(|&d| d < 32)?;
            let function = hex(function, 1..=1).filter(|&f| f < 8)?;
            Some(Bdf { domain, bus: hex(bus, 1..=2)? as u8, device: device as u8, function: function as u8 })
        };
        parse().ok_or_else(|| InvalidBdf(text.into()))
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_addresses_are_read() {
        let long: Bdf = "0001:3a:1f.7".parse().unwrap();
        assert_eq!(long, Bdf { domain: 1, bus: 0x3a, device: 0x1f, function: 7 });
        assert_eq!(long.to_string(), "0001:3a:1f.7");
        assert_eq!("01:02.0".parse::<Bdf>().unwrap().to_string(), "0000:01:02.0");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "nvme0",
            "00:20.0",
            "00:1f.8",
            "1f.0",
            "0000:00:03",
            "g0:00.0",
            "0:0:0:0.0",
            "00:-1.0",
            "+1:00.0",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(InvalidBdf(text.into())), "{text}");
        }
    }
}
