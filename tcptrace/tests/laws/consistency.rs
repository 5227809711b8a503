//! All views of one moment agree.

use crate::{damage::Damage, host::Host, recordings, views::Views};
use tcptrace::model::{Input, script};

/// Feeds all of it, and holds the laws at each tick and at the end.
fn hold(inputs: &[Input], what: &str) {
    let mut views = Views::default();
    for (at, input) in inputs.iter().enumerate() {
        views.feed(input);
        if matches!(input, Input::Tick { .. }) {
            views.agree(&format!("{what}, input {at}"));
        }
    }
    views.end(what);
}

fn made_up(seed: u64, steps: usize) -> String {
    let mut host = Host::new(seed);
    (0..steps).for_each(|_| host.step());
    // Two rounds, so that what was in doubt is settled.
    (0..2).for_each(|_| host.round());
    host.script()
}

#[test]
fn of_any_host() {
    for seed in 0..100 {
        let inputs = script::inputs(&made_up(seed, 150)).unwrap();
        for damage in Damage::ALL {
            hold(&damage.to(&inputs, seed), &format!("host {seed}, {damage:?}"));
        }
    }
}

#[test]
fn of_every_recording() {
    for (name, inputs) in recordings::all() {
        for damage in Damage::ALL {
            for seed in 0..20 {
                hold(&damage.to(&inputs, seed), &format!("{name}, {damage:?} {seed}"));
            }
        }
    }
}

/// Where nothing is damaged and nothing moves, the tables have what the events say.
#[test]
fn what_doctor_has_from_the_tables_is_what_is_known() {
    for seed in 0..100 {
        let mut views = Views::default();
        script::inputs(&made_up(seed, 150)).unwrap().iter().for_each(|input| views.feed(input));
        views.agree_with_doctor(&format!("host {seed}"));
    }
}
