//! A pause in a flood of posts.
//!
//! A loop that runs posts faster than another thread posts them would take one post at a time, and
//! each time move the cache lines of the inbox and of the post between two processors. So a loop
//! that has taken few posts several times in a row pauses before it looks at the inbox
//! again, and posts gather meanwhile. A pause in which few come puts off the next one.

use std::cell::Cell;

/// The number of times in a row that the loop took few posts. Negative: few posts came in a pause.
/// `PAUSED`: the loop has paused since the last time.
#[derive(Debug, Default)]
pub(super) struct Flood(Cell<i32>);

/// The length of a pause, in hints to the processor: from 0.2 to 0.8 µs.
const PAUSE: u32 = 16;
/// The first pause comes after so many times.
const FLOOD: i32 = 4;
const PAUSED: i32 = i32::MAX;
/// So many posts at once are no reason for a pause.
const MANY: u32 = 64;
/// A pause had no effect when fewer posts come. The next pause then comes so many times later.
const FEW: u32 = 4;
const PUT_OFF: i32 = 64;

impl Flood {
    /// The loop has taken `count` posts.
    #[inline]
    pub(super) fn took(&self, count: u32) {
        self.0.set(match self.0.get() {
            _ if count >= MANY => 0,
            PAUSED if count < FEW => -PUT_OFF,
            PAUSED => FLOOD,
            times => times + 1,
        });
    }

    /// Whether the loop pauses before it looks for posts, if it has nothing else to do.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        (FLOOD..PAUSED).contains(&self.0.get())
    }

    #[cold]
    pub(super) fn pause(&self) {
        self.0.set(PAUSED);
        (0..PAUSE).for_each(|_| std::hint::spin_loop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of pauses of a loop that takes `count` posts so many times.
    fn pauses(flood: &Flood, times: u32, count: u32) -> u32 {
        let pauses = |_| {
            flood.took(count);
            let is_due = flood.is_due();
            if is_due {
                flood.pause();
            }
            u32::from(is_due)
        };
        (0..times).map(pauses).sum()
    }

    #[test]
    fn s26_a_loop_pauses_only_in_a_flood() {
        let flood = Flood::default();
        assert_eq!(pauses(&flood, 100, MANY), 0);
        assert_eq!(pauses(&flood, FLOOD as u32 - 1, FEW), 0);
        // Each time from here on.
        assert_eq!(pauses(&flood, 100, FEW), 100);
    }

    #[test]
    fn s26_pauses_without_effect_are_rare() {
        let most = 10_000 / PUT_OFF as u32;
        assert!((1..most).contains(&pauses(&Flood::default(), 10_000, 1)));
    }
}
