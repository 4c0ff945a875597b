//! The environments of one function version.

use std::time::Instant;

use crate::environment::Environment;

/// Environments and what each is doing.
#[derive(Default)]
pub(super) struct Pool {
    generation: u64,
    members: Vec<Member>,
}

struct Member {
    environment: Environment,
    generation: u64,
    /// Since when it has been idle; `None` while it works.
    idle_since: Option<Instant>,
}

impl Pool {
    /// Members of generations before `generation` are shut down as soon as they are idle.
    pub(super) fn advance(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
        self.dismiss(|member, current| member.generation < current);
    }

    /// Shuts down members idle since before `oldest`.
    pub(super) fn reap(&mut self, oldest: Instant) {
        self.dismiss(|member, _| member.idle_since.is_some_and(|since| since < oldest));
    }

    fn dismiss(&mut self, mut unwanted: impl FnMut(&Member, u64) -> bool) {
        let generation = self.generation;
        self.members.retain(|member| {
            let dismissed = member.idle_since.is_some() && unwanted(member, generation);
            if dismissed {
                member.environment.shut_down();
            }
            !dismissed
        });
    }

    /// The idle member used last, now busy: the others may then grow old enough to be reaped.
    pub(super) fn take_idle(&mut self) -> Option<Environment> {
        let idle = self.members.iter_mut().filter(|member| member.idle_since.is_some());
        let member = idle.max_by_key(|member| member.idle_since)?;
        member.idle_since = None;
        Some(member.environment.clone())
    }

    /// No member is idle, but one has answered its caller.
    pub(super) fn is_about_to_be_idle(&self) -> bool {
        let current = || self.members.iter().filter(|member| member.generation == self.generation);
        current().all(|member| member.idle_since.is_none())
            && current().any(|member| member.environment.is_settling())
    }

    pub(super) fn add_busy(&mut self, environment: Environment, generation: u64) {
        self.members.push(Member { environment, generation, idle_since: None });
    }

    pub(super) fn on_idle(&mut self, id: &str) {
        if let Some(member) = self.members.iter_mut().find(|member| member.environment.id == id) {
            member.idle_since = Some(Instant::now());
        }
        self.advance(self.generation);
    }

    pub(super) fn on_ended(&mut self, id: &str) {
        self.members.retain(|member| member.environment.id != id);
    }

    pub(super) fn busy(&self) -> usize {
        self.members.iter().filter(|member| member.idle_since.is_none()).count()
    }
}
