//! Random programs. Small numbers make things meet: equal deadlines, handles of what is running or
//! has just ended.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Action, Many, Program, Script, Step, When};

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..12u64, 3 => 0..100u64, 1 => Just(1 << 62)]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        6 => time().prop_map(When::Ahead),
        2 => (0..50u64).prop_map(When::Past),
        1 => Just(When::Zero),
        1 => Just(When::Never),
    ]
}

fn many() -> impl Strategy<Value = Many> {
    (1..200u64, prop_oneof![0..12u32, 0..63u32], any::<u64>())
        .prop_map(|(count, bits, seed)| Many { count, bits, seed })
}

/// An action that schedules nothing.
fn acting() -> impl Strategy<Value = Action> {
    let back = || prop_oneof![4 => 0..4usize, 1 => 0..40usize];
    prop_oneof![
        6 => back().prop_map(Action::Cancel),
        6 => (back(), when()).prop_map(|(back, when)| Action::Reschedule(back, when)),
        2 => back().prop_map(Action::When),
        1 => back().prop_map(Action::Skipped),
        2 => back().prop_map(Action::IsPending),
        2 => back().prop_map(Action::Ref),
        3 => back().prop_map(Action::Unref),
        2 => back().prop_map(Action::OnRelease),
        2 => Just(Action::Stop),
        2 => Just(Action::Break),
        1 => Just(Action::Run),
        1 => Just(Action::Panic),
    ]
}

/// An action that schedules a callback with one of these scripts.
fn scheduling(script: impl Strategy<Value = Script> + Clone) -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => script.clone().prop_map(Action::CallSoon),
        3 => (time(), script.clone()).prop_map(|(delay, script)| Action::CallLater(delay, script)),
        3 => (when(), script.clone()).prop_map(|(when, script)| Action::CallAt(when, script)),
        1 => (time(), script).prop_map(|(period, script)| Action::CallEvery(period, script)),
    ]
}

fn script() -> impl Strategy<Value = Script> + Clone {
    let leaf = vec(acting(), 0..3).prop_map(Script::from).boxed();
    leaf.prop_recursive(3, 32, 4, |inner| {
        vec(prop_oneof![2 => acting(), 3 => scheduling(inner)], 0..4).prop_map(Script::from)
    })
}

pub(crate) fn program() -> impl Strategy<Value = Program> {
    let step = prop_oneof![
        6 => scheduling(script()).prop_map(Step::Do),
        3 => acting().prop_map(Step::Do),
        1 => many().prop_map(|many| Step::Do(Action::Flood(many))),
        1 => many().prop_map(|many| Step::Do(Action::Thin(many))),
        2 => Just(Step::Run),
        1 => Just(Step::RunForever),
        2 => time().prop_map(Step::RunOnce),
        1 => Just(Step::RunOnce(u64::MAX)),
    ];
    let start = prop_oneof![Just(0), Just(1_000), Just(1 << 63), Just(u64::MAX - 60)];
    let slack = prop_oneof![3 => Just(0), 1 => 1..30u64];
    (start, slack, any::<bool>(), vec(step, 1..30)).prop_map(
        |(start, slack, handles_panics, steps)| Program { start, slack, handles_panics, steps },
    )
}
