//! Free ports in place of taken ones, written into the stack's `.env` file.

use crate::stack::Stack;

use super::{Conflict, is_taken};

/// How far from the usual port a free one is looked for first: 5432 becomes 15432.
const STEP: u16 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub variable: String,
    pub service: String,
    pub from: u16,
    pub to: u16,
}

/// A free port for each conflict, none of which is another service's of the stack.
pub fn proposals(stack: &Stack, conflicts: &[&Conflict]) -> Vec<Proposal> {
    let mut used: Vec<u16> = stack.services.iter().flat_map(|service| &service.ports).map(|port| port.number).collect();
    used.extend(stack.applications.iter().filter_map(|application| application.port));
    let mut proposals = Vec::new();
    for conflict in conflicts {
        let candidates = (1..=5).filter_map(|times| conflict.port.checked_add(STEP.checked_mul(times)?));
        let candidates = candidates.chain(conflict.port.saturating_add(1)..=u16::MAX).chain((20_000..u16::MAX).rev());
        let Some(free) = candidates.into_iter().find(|port| !used.contains(port) && !is_taken(*port)) else { continue };
        used.push(free);
        proposals.push(Proposal {
            variable: conflict.variable.clone(),
            service: conflict.service.clone(),
            from: conflict.port,
            to: free,
        });
    }
    proposals
}
