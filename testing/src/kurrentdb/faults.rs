//! What goes wrong, and when.

use std::collections::VecDeque;
use std::time::Duration;

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut, and nothing was stored.
    CutBefore,
    /// The events are stored, and the connection is cut instead of an answer.
    CutAfter,
    /// Nothing is stored, and no answer ever comes.
    SilentBefore,
    /// The events are stored, and no answer ever comes.
    SilentAfter,
    /// The answer takes a while.
    Slow(Duration),
    /// The node says that it is not the leader, and names the one that is.
    NotLeader,
    /// The node is not ready to take anything.
    NotReady,
    /// The events are stored, and the answer is that the deadline has passed.
    DeadlineAfter,
    /// The events are stored, and the answer is that the operation timed out, as a commit that took too long is
    /// answered.
    TimeoutAfter,
    /// The events are stored, and the answer has no position.
    NoPosition,
    /// Events that come again are not recognised, and conflict with themselves.
    NoDeduplication,
}

/// Faults by chance: each kind befalls one append in so many, 0 means none. The same seed gives the same faults to the
/// same sequence of appends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Where the chance starts.
    pub seed: u64,
    /// [`Fault::CutAfter`]: the answer is lost.
    pub lost_answers: u64,
    /// [`Fault::CutBefore`]: the connection is dropped.
    pub dropped: u64,
    /// [`Fault::NotLeader`].
    pub not_leader: u64,
    /// [`Fault::NotReady`].
    pub not_ready: u64,
    /// [`Fault::DeadlineAfter`] and [`Fault::TimeoutAfter`].
    pub timed_out: u64,
    /// [`Fault::Slow`], 20 ms.
    pub slow: u64,
    /// Every subscription ends with an append.
    pub ended_subscriptions: u64,
}

/// What befalls an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppendFaults {
    pub(super) fault: Option<Fault>,
    pub(super) ends_subscriptions: bool,
}

/// The faults to come.
#[derive(Debug, Default)]
pub(super) struct FaultInjector {
    /// Those asked for, one after another.
    pub(super) queued: VecDeque<Fault>,
    plan: FaultPlan,
    random_state: u64,
}

impl FaultInjector {
    pub(super) fn set_plan(&mut self, plan: FaultPlan) {
        self.plan = plan;
        self.random_state = plan.seed;
    }

    /// What befalls the append at hand.
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
        // Each is drawn each time, so that one rate does not shift what the others draw.
        let drawn = chances.map(|(one_in, fault)| self.happens(one_in).then_some(fault));
        let ends_subscriptions = self.happens(plan.ended_subscriptions);
        AppendFaults { fault: drawn.into_iter().flatten().next(), ends_subscriptions }
    }

    fn happens(&mut self, one_in: u64) -> bool {
        let drawn = self.next_random();
        one_in > 0 && drawn.is_multiple_of(one_in)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
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
            let mut faults = FaultInjector::default();
            faults.set_plan(FaultPlan { seed, lost_answers: 10, ..FaultPlan::default() });
            (0..1_000).map(|_| faults.next_faults()).collect::<Vec<_>>()
        };
        assert_eq!(faults_of_seed(7), faults_of_seed(7));
        assert_ne!(faults_of_seed(7), faults_of_seed(8));
        let lost = faults_of_seed(7).iter().filter(|fate| fate.fault == Some(Fault::CutAfter)).count();
        assert!((50..150).contains(&lost), "{lost} of 1,000");
    }
}
