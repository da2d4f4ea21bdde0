//! A stack with fixed addresses must not share them with another network of the engine: found before Compose fails on it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Result;
use serde::Deserialize;

use super::client;
use super::containers::PROJECT_LABEL;
use crate::stack::Stack;
use crate::ui::{Exit, Failure};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    name: String,
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "IPAM")]
    addresses: Addresses,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Addresses {
    config: Option<Vec<Subnet>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    subnet: Option<String>,
}

/// An error if a network that is not the project's has addresses in common with the stack's.
pub async fn check(stack: &Stack, project: &str) -> Result<()> {
    let Some(wanted) = &stack.network.subnet else { return Ok(()) };
    let ids = client::list(&["network", "ls", "--quiet", "--no-trunc"]).await?;
    let networks: Vec<Network> = client::inspect("network", &ids).await?;
    let is_ours = |network: &&Network| {
        network.labels.as_ref().and_then(|labels| labels.get(PROJECT_LABEL)).is_some_and(|of| of == project)
    };
    let overlapping = networks.iter().filter(|network| !is_ours(network)).find_map(|network| {
        let mut subnets = network.addresses.config.iter().flatten().filter_map(|subnet| subnet.subnet.as_ref());
        let subnet = subnets.find(|subnet| overlap(subnet, wanted))?;
        Some((network, subnet))
    });
    let Some((network, subnet)) = overlapping else { return Ok(()) };
    let of = network.labels.as_ref().and_then(|labels| labels.get(PROJECT_LABEL));
    let of = of.map_or_else(String::new, |project| format!(" of the Compose project `{project}`"));
    let taken: Vec<&String> = networks
        .iter()
        .flat_map(|network| network.addresses.config.iter().flatten())
        .filter_map(|one| one.subnet.as_ref())
        .collect();
    let free = (16..32)
        .map(|second| format!("172.{second}.0.0/16"))
        .chain((100..200).map(|third| format!("192.168.{third}.0/24")));
    let free = free.into_iter().find(|free| !taken.iter().any(|taken| overlap(taken, free)));
    let hint = free.map_or_else(
        || format!("`docker network rm {}` if nothing needs it", network.name),
        |free| {
            format!(
                "write `NETWORK_SUBNET={free}` into {}, or `docker network rm {}` if nothing needs it",
                stack.env_file.display(),
                network.name
            )
        },
    );
    Err(Failure::new(
        Exit::Failed,
        format!("the addresses {wanted} of {} are taken, nothing was started", stack.network.name),
    )
    .body(format!("  the network `{}`{of} has {subnet}", network.name))
    .hint(hint)
    .into())
}

/// Whether two IPv4 networks in CIDR form have an address in common. Anything else has none.
fn overlap(left: &str, right: &str) -> bool {
    let (Some((left, left_bits)), Some((right, right_bits))) = (parse(left), parse(right)) else { return false };
    let bits = left_bits.min(right_bits);
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    left & mask == right & mask
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/')?;
    Some((address.parse::<Ipv4Addr>().ok()?.into(), bits.parse().ok().filter(|bits| *bits <= 32)?))
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn networks_overlap_where_one_holds_the_other() {
        assert!(overlap("172.20.0.0/16", "172.20.5.0/24"));
        assert!(overlap("0.0.0.0/0", "10.0.0.0/8"));
        assert!(!overlap("172.20.0.0/16", "172.21.0.0/16"));
        assert!(!overlap("fd00::/64", "172.21.0.0/16"));
    }
}
