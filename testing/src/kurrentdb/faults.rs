//! Faults: failures of appends, on demand or at random.

use std::collections::VecDeque;
use std::time::Duration;

/// A failure of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is stored, and the connection is cut.
    CutBefore,
    /// The events are stored, and the connection is cut before the response.
    CutAfter,
    /// Instead of the events, an event of another writer is stored in the stream, and the connection is cut.
    Overtaken,
    /// Nothing is stored, and there is no response.
    SilentBefore,
    /// The events are stored, and there is no response.
    SilentAfter,
    /// The events are stored after this time, and then the response is sent.
    Slow(Duration),
    /// The node answers that it is not the leader, and names the leader.
    NotLeader,
    /// The node answers that it is not ready.
    NotReady,
    /// The events are stored, and the response says that the deadline was exceeded.
    DeadlineAfter,
    /// The events are stored, and the response says that the operation timed out, as for a slow commit.
    TimeoutAfter,
    /// The events are stored, and the response has no position.
    NoPosition,
    /// Repeated events are not recognized, and conflict with the stored ones.
    NoDeduplication,
}

/// Random faults. A rate of n means one fault in n appends, 0 means none. The same seed injects the same faults into
/// the same sequence of appends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The seed of the random numbers.
    pub seed: u64,
    /// The rate of [`Fault::CutAfter`].
    pub lost_answers: u64,
    /// The rate of [`Fault::CutBefore`].
    pub dropped: u64,
    /// The rate of [`Fault::NotLeader`].
    pub not_leader: u64,
    /// The rate of [`Fault::NotReady`].
    pub not_ready: u64,
    /// The rate of [`Fault::DeadlineAfter`] and [`Fault::TimeoutAfter`] together.
    pub timed_out: u64,
    /// The rate of [`Fault::Slow`] by 20 ms.
    pub slow: u64,
    /// The rate at which all subscriptions end.
    pub ended_subscriptions: u64,
}

/// The faults of one append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppendFaults {
    pub(super) fault: Option<Fault>,
    pub(super) ends_subscriptions: bool,
}

/// The source of faults.
#[derive(Debug, Default)]
pub(super) struct ScheduledFaults {
    /// Faults on demand, for one append each.
    pub(super) queued: VecDeque<Fault>,
    plan: FaultPlan,
    random_state: u64,
}

impl ScheduledFaults {
    pub(super) fn set_plan(&mut self, plan: FaultPlan) {
        self.plan = plan;
        self.random_state = plan.seed;
    }

    /// Returns the faults of the next append.
    pub(super) fn next_faults(&mut self) -> AppendFaults {
        const SLOW: Duration = Duration::from_millis(20);
        if let Some(fault) = self.queued.pop_front() {
            return AppendFaults { fault: Some(fault), ends_subscriptions: false };
        }
        let plan = self.plan;
        let chances = [
            (plan.lost_answers, Fault::CutAfter),
            (plan.dropped, Fault::CutBefore),
            (plan.not_leader, Fault::NotLeader),
            (plan.not_ready, Fault::NotReady),
            (plan.timed_out.saturating_mul(2), Fault::DeadlineAfter),
            (plan.timed_out.saturating_mul(2), Fault::TimeoutAfter),
            (plan.slow, Fault::Slow(SLOW)),
        ];
        // Each append draws a random number for every fault, so that one rate does not change the numbers of the other
        // faults.
        let drawn = chances.map(|(one_in, fault)| self.happens(one_in).then_some(fault));
        let ends_subscriptions = self.happens(plan.ended_subscriptions);
        AppendFaults { fault: drawn.into_iter().flatten().next(), ends_subscriptions }
    }

    fn happens(&mut self, one_in: u64) -> bool {
        let drawn = self.next_random();
        one_in > 0 && drawn.is_multiple_of(one_in)
    }

    /// Returns the next number of SplitMix64 (Steele, Lea, Flood 2014).
    fn next_random(&mut self) -> u64 {
        self.random_state = self.random_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random_state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_deterministic_and_follows_its_rates() {
        let faults_of_seed = |seed| {
            let mut faults = ScheduledFaults::default();
            faults.set_plan(FaultPlan { seed, lost_answers: 10, ..FaultPlan::default() });
            (0..1_000).map(|_| faults.next_faults()).collect::<Vec<_>>()
        };
        assert_eq!(faults_of_seed(7), faults_of_seed(7));
        assert_ne!(faults_of_seed(7), faults_of_seed(8));
        let lost = faults_of_seed(7).iter().filter(|faults| faults.fault == Some(Fault::CutAfter)).count();
        assert!((50..150).contains(&lost), "{lost} of 1,000 answers were lost, at a rate of one in 10");
    }
}
