//! Takes over what other gateways have heard of replicas. It never undoes what this gateway has heard later itself.

use super::super::directory::Origin;
use super::claim::{Claim, Refused, allow, is_description, parse};
use super::record::{Heard, Record};
use super::{Lease, Registered, Registrations, State};
use std::time::Instant;

impl Registrations {
    /// Takes over what other gateways have heard. The rules hold for it as if its caller had said it here.
    pub(super) fn merge(&self, heard: Vec<Heard>, now: Instant) {
        let mut state = self.state.lock();
        let mut is_changed = false;
        for one in heard {
            is_changed |= self.merge_one(&mut state, one, now).unwrap_or_default();
        }
        if is_changed {
            self.publish(&state);
        }
    }

    /// Takes over one record. Returns whether that changes the servers.
    fn merge_one(&self, state: &mut State, heard: Heard, now: Instant) -> Result<bool, Refused> {
        let Heard { record, age, left } = heard;
        let Record { name, owner, url, description, sequence, is_withdrawn } = record;
        let claim = Claim { name: &name, url: &url, sequence: Some(sequence), description: None };
        let (segment, endpoint) = parse(&claim)?;
        allow(&state.rules, &owner, &name, &endpoint)?;
        if self.directory.find(segment).is_some_and(|server| server.origin == Origin::File) {
            return Ok(false);
        }
        if state.servers.get(segment).is_some_and(|server| server.name != name || server.owner != owner) {
            return Ok(false);
        }
        if left.is_zero() {
            return Ok(false);
        }
        if state.find(segment, &endpoint).is_none() {
            state.bound(&owner, segment)?;
        }
        let description = description.filter(|text| is_description(text));
        let server = state.servers.entry(segment.into()).or_insert_with(|| Registered {
            name,
            owner,
            description: None,
            leases: Vec::new(),
        });
        let is_described = description.is_some() && server.description.is_none();
        if is_described {
            server.description = description;
        }
        let (until, heard) = (now + left, now.checked_sub(age).unwrap_or(now));
        let at = server.leases.partition_point(|lease| lease.endpoint.address() < endpoint.address());
        let known = server.leases.get_mut(at).filter(|lease| lease.endpoint.address() == endpoint.address());
        let Some(lease) = known else {
            // A message of the sidecar that is on its way to this gateway may have a smaller number.
            let sequence = if is_withdrawn { sequence } else { 0 };
            if !is_withdrawn {
                let (server, address) = (&server.name, endpoint.address());
                tracing::info!(server, address, "a replica has registered at another gateway");
            }
            server
                .leases
                .insert(at, Lease { endpoint, until, sequence, heard, is_of_others: true, is_withdrawn });
            return Ok(!is_withdrawn || is_described);
        };
        let is_newer = sequence > lease.sequence || (sequence == lease.sequence && heard > lease.heard);
        match (lease.is_withdrawn, is_withdrawn) {
            (false, false) => {
                lease.until = lease.until.max(until);
                let is_moved = is_newer && heard > lease.heard && lease.endpoint.url() != endpoint.url();
                if is_moved {
                    lease.endpoint = endpoint;
                }
                Ok(is_moved || is_described)
            }
            (false, true) if is_newer => {
                let (server, address) = (&server.name, endpoint.address());
                tracing::info!(server, address, "a replica has withdrawn at another gateway");
                (lease.is_withdrawn, lease.sequence, lease.heard) = (true, sequence, heard);
                Ok(true)
            }
            (true, false) if is_newer => {
                (lease.is_withdrawn, lease.until, lease.heard, lease.is_of_others) =
                    (false, until, heard, true);
                lease.endpoint = endpoint;
                Ok(true)
            }
            _ => Ok(is_described),
        }
    }

    /// Keeps the leases that only other gateways renew until this time, because what they say cannot be read.
    pub(super) fn hold(&self, until: Instant) {
        let mut state = self.state.lock();
        for lease in state.servers.values_mut().flat_map(|server| &mut server.leases) {
            if lease.is_of_others && !lease.is_withdrawn {
                lease.until = lease.until.max(until);
            }
        }
    }
}
