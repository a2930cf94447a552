//! [`NoProxy`]: the hosts that are reached without a proxy.
//!
//! As with curl, an entry is a host, which includes its subdomains, an address, or a network in CIDR notation; entries
//! are separated by commas or spaces. As with others, an entry may have a port, and `*` is every host.

use std::net::IpAddr;

/// The bits of an IPv4 address and of an IPv6 address.
const V4_BITS: u32 = 32;
const V6_BITS: u32 = 128;

/// The entries of the variable.
#[derive(Debug, Default)]
pub(super) struct NoProxy(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// `None` for every port.
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// A host in lower case, and its subdomains.
    Name(String),
    /// The addresses whose first `bits` are those of `address`.
    Network {
        address: IpAddr,
        bits: u32,
    },
}

impl NoProxy {
    /// Reads the variable. What is neither a name nor an address matches nothing.
    pub(super) fn parse(text: &str) -> Self {
        let entries = text.split(|character: char| character == ',' || character.is_whitespace());
        Self(entries.filter_map(Entry::parse).collect())
    }

    /// Whether a URL's host and port are exempt. An IPv6 address may have brackets.
    pub(super) fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = address(host);
        let name = host.to_ascii_lowercase();
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|wanted| wanted == port) && entry.hosts.contain(&name, address)
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let of_all_ports = |hosts| Self { hosts, port: None };
        // An IPv6 address has colons, so a port can only follow what is not one.
        if let Some(hosts) = Hosts::parse(text) {
            return Some(of_all_ports(hosts));
        }
        let (host, port) = text.rsplit_once(':')?;
        Some(Self {
            hosts: Hosts::parse(host)?,
            port: Some(port.parse().ok()?),
        })
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((network, bits)) = text.split_once('/') {
            let address = address(network)?;
            let bits = bits.parse().ok()?;
            return (bits <= bits_of(address)).then_some(Self::Network { address, bits });
        }
        if let Some(address) = address(text) {
            let bits = bits_of(address);
            return Some(Self::Network { address, bits });
        }
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_name = !name.is_empty() && !name.contains([':', '[', ']']);
        is_name.then(|| Self::Name(name.to_ascii_lowercase()))
    }

    fn contain(&self, host: &str, host_address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Self::Network { address, bits } => host_address
                .is_some_and(|host| first_bits(host, *bits) == first_bits(*address, *bits)),
        }
    }
}

/// The address that a text is, with or without brackets. IPv4 that is written as IPv6 is IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = inner.unwrap_or(text).parse().ok()?;
    Some(address.to_canonical())
}

const fn bits_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => V4_BITS,
        IpAddr::V6(_) => V6_BITS,
    }
}

/// The first `bits` of an address, after the number of bits that it has in all.
fn first_bits(address: IpAddr, bits: u32) -> (u32, u128) {
    let number = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let all = bits_of(address);
    let rest = all.saturating_sub(bits);
    // All bits of an IPv6 address are too many to shift by.
    (all, number.checked_shr(rest).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every host that each list is asked about, on port 443.
    const HOSTS: [&str; 10] = [
        "example.com",
        "api.Example.com.",
        "notexample.com",
        "com",
        "127.0.0.1",
        "10.1.2.3",
        "10.2.0.0",
        "[::1]",
        "[2001:db8::7]",
        "[::ffff:10.1.0.1]",
    ];

    fn matched(list: &str) -> Vec<&'static str> {
        let list = NoProxy::parse(list);
        let hosts = HOSTS.iter().copied();
        hosts.filter(|host| list.matches(host, 443)).collect()
    }

    #[test]
    fn a_list_matches_hosts_subdomains_addresses_and_networks() {
        let of_example = ["example.com", "api.Example.com."];
        for (list, expected) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("*", &HOSTS),
            ("a.example,*", &HOSTS),
            ("example.com", &of_example),
            (".EXAMPLE.com", &of_example),
            ("*.example.com.", &of_example),
            ("api.example.com", &["api.Example.com."]),
            (
                "com",
                &["example.com", "api.Example.com.", "notexample.com", "com"],
            ),
            ("localhost 127.0.0.1", &["127.0.0.1"]),
            ("10.1.0.0/16", &["10.1.2.3", "[::ffff:10.1.0.1]"]),
            (
                "10.0.0.0/8,\t::1",
                &["10.1.2.3", "10.2.0.0", "[::1]", "[::ffff:10.1.0.1]"],
            ),
            (
                "0.0.0.0/0",
                &["127.0.0.1", "10.1.2.3", "10.2.0.0", "[::ffff:10.1.0.1]"],
            ),
            ("::/0", &["[::1]", "[2001:db8::7]"]),
            ("[2001:db8::]/32", &["[2001:db8::7]"]),
            ("2001:db8::7", &["[2001:db8::7]"]),
            // Neither names nor addresses.
            ("10.0.0.0/33,::/129,10.0.0.0/-1,1.2.3/8,[::1", &[]),
        ] {
            assert_eq!(matched(list), expected, "{list}");
        }
    }

    #[test]
    fn an_entry_with_a_port_matches_that_port_only() {
        for (list, host) in [
            ("example.com:443", "example.com"),
            ("10.1.2.3:443", "10.1.2.3"),
            ("[::1]:443", "[::1]"),
            ("*:443", "anything.example"),
        ] {
            let list = NoProxy::parse(list);
            assert!(
                list.matches(host, 443) && !list.matches(host, 8443),
                "{host}"
            );
        }
        assert!(matched("example.com:8443,[::1]:8443,example.com:https").is_empty());
    }
}
