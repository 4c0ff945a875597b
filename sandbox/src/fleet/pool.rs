//! The environments of one function version.

use std::time::Instant;

use crate::environment::Environment;

/// Environments and what each is doing.
#[derive(Default)]
pub(super) struct Pool {
    generation: u64,
    members: Vec<Member>,
}

/// One environment of a pool.
pub(super) struct Member {
    pub(super) environment: Environment,
    /// Configuration it was started with.
    pub(super) generation: u64,
    /// Invocations it can take at a time: one, but for managed instances.
    pub(super) capacity: usize,
    /// Started ahead of invocations and kept ready for them.
    pub(super) provisioned: bool,
    /// The only tenant it serves, with tenant isolation.
    pub(super) tenant_id: Option<String>,
    /// Invocations it works on.
    pub(super) in_flight: usize,
    /// Since when it has had none; not valid until `initialized`.
    pub(super) idle_since: Instant,
    /// Its Init is over.
    pub(super) initialized: bool,
}

impl Member {
    fn is_idle(&self) -> bool {
        self.initialized && self.in_flight == 0
    }
}

impl Pool {
    /// Members of generations before `generation` are shut down when they are idle.
    pub(super) fn advance(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
        self.shut_down_idle(|member, current| member.generation < current);
    }

    /// Shuts down members idle since before `oldest`, but for provisioned ones.
    pub(super) fn reap(&mut self, oldest: Instant) {
        self.shut_down_idle(|member, _| member.idle_since < oldest && !member.provisioned);
    }

    fn shut_down_idle(&mut self, mut is_selected: impl FnMut(&Member, u64) -> bool) {
        let generation = self.generation;
        self.members.retain(|member| {
            let dismissed = member.is_idle() && is_selected(member, generation);
            if dismissed {
                member.environment.shut_down();
            }
            !dismissed
        });
    }

    /// A member with room for an invocation of this tenant, which is counted: provisioned ones first, then the one used
    /// last, so that the others may grow old enough to be reaped.
    pub(super) fn take(&mut self, tenant_id: Option<&str>) -> Option<Environment> {
        let generation = self.generation;
        let free = self.members.iter_mut().filter(|member| {
            // One at a time: a new environment is handed its invocation before its Init is over. An invocation waits for
            // the Init of a provisioned one, which was started ahead of it.
            let takes_early = member.capacity > 1 || member.provisioned;
            let has_room = member.in_flight < member.capacity && (member.initialized || takes_early);
            let is_of_tenant = member.tenant_id.as_deref() == tenant_id;
            has_room && is_of_tenant && member.generation == generation
        });
        let member = free.max_by_key(|member| (member.provisioned, member.initialized, member.idle_since))?;
        member.in_flight += 1;
        Some(member.environment.clone())
    }

    /// The members that have responded to their callers, if none has room for an invocation of this tenant.
    pub(super) fn settling(&self, tenant_id: Option<&str>) -> Vec<Environment> {
        let current = || {
            let members = self.members.iter().filter(|member| member.generation == self.generation);
            members.filter(|member| member.tenant_id.as_deref() == tenant_id)
        };
        if current().any(|member| member.in_flight < member.capacity) {
            return Vec::new();
        }
        current().map(|member| &member.environment).filter(|known| known.is_settling()).cloned().collect()
    }

    pub(super) fn add(&mut self, member: Member) {
        self.members.push(member);
    }

    pub(super) fn on_initialized(&mut self, id: &str) {
        if let Some(member) = self.members.iter_mut().find(|member| member.environment.id == id) {
            member.initialized = true;
        }
        self.advance(self.generation);
    }

    pub(super) fn on_idle(&mut self, id: &str) {
        if let Some(member) = self.members.iter_mut().find(|member| member.environment.id == id) {
            member.in_flight = member.in_flight.saturating_sub(1);
            member.idle_since = Instant::now();
        }
        self.advance(self.generation);
    }

    pub(super) fn on_ended(&mut self, id: &str) {
        self.members.retain(|member| member.environment.id != id);
    }

    pub(super) fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.members.iter().map(|member| &member.environment)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.members.iter().map(|member| member.in_flight).sum()
    }

    /// Provisioned members: all that are initialized, and those of them that are idle.
    pub(super) fn provisioned(&self) -> (usize, usize) {
        let allocated = self.members.iter().filter(|member| member.provisioned && member.initialized);
        (allocated.clone().count(), allocated.filter(|member| member.in_flight == 0).count())
    }

    /// Returns how many provisioned members are missing. Members beyond `requested` are no longer provisioned and shut
    /// down when idle.
    pub(super) fn settle_provisioned(&mut self, requested: usize) -> usize {
        let generation = self.generation;
        let mut kept = 0;
        for member in self.members.iter_mut().filter(|member| member.provisioned) {
            let keep = kept < requested && member.generation == generation;
            kept += usize::from(keep);
            member.provisioned = keep;
            if !keep {
                member.generation = 0;
            }
        }
        self.advance(generation);
        requested - kept
    }
}
