//! Two sides, measured in turn: what the machine does beside it hits both.

use std::future::Future;

use serde::{Deserialize, Serialize};

/// What the rounds came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// What was measured on our side in each round.
    pub ours: Vec<f64>,
    /// What was measured on the other side in each round.
    pub theirs: Vec<f64>,
    /// Ours divided by theirs, round by round.
    pub ratios: Vec<f64>,
}

impl Rounds {
    /// Measures both sides `rounds` times. Who goes first alternates.
    pub async fn measure<A, B, E>(
        rounds: usize,
        mut ours: impl FnMut(usize) -> A,
        mut theirs: impl FnMut(usize) -> B,
    ) -> Result<Self, E>
    where
        A: Future<Output = Result<f64, E>>,
        B: Future<Output = Result<f64, E>>,
    {
        let mut all = Self::default();
        for round in 0..rounds {
            let (our, their) = if round % 2 == 0 {
                let our = ours(round).await?;
                (our, theirs(round).await?)
            } else {
                let their = theirs(round).await?;
                (ours(round).await?, their)
            };
            all.push(our, their);
        }
        Ok(all)
    }

    /// Adds a round.
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratios.push(ours / theirs);
    }
}

/// The middle value; between the two middle ones where their number is even. 0 for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
