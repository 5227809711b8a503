//! Inputs as they should not be: some missing, twice, in another order, and lost with a word of it.

use crate::host::Random;
use tcptrace::model::{Input, script};

/// A way to damage inputs.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    None,
    Drop,
    Twice,
    Swap,
    Lose,
}

impl Damage {
    pub const ALL: [Self; 5] = [Self::None, Self::Drop, Self::Twice, Self::Swap, Self::Lose];

    /// The inputs with one in ten damaged; the beginning of all is left as it is.
    pub fn to(self, inputs: &[Input], seed: u64) -> Vec<Input> {
        let mut random = Random::new(seed);
        let mut out: Vec<Input> = Vec::new();
        for (at, input) in inputs.iter().enumerate() {
            let hit = at > 0 && random.below(10) == 0;
            match self {
                Self::Drop if hit => {}
                Self::Twice if hit => out.extend([input.clone(), input.clone()]),
                Self::Swap if hit && out.len() > 1 => {
                    let before = out.pop();
                    out.push(input.clone());
                    out.extend(before);
                }
                Self::Lose if hit => {
                    let ms = input.mono_ns().unwrap_or(0) / 1_000_000 + 1;
                    out.extend(script::inputs(&format!("{ms}ms lost 1\n")).unwrap());
                }
                _ => out.push(input.clone()),
            }
        }
        out
    }
}
