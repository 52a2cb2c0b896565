//! Rounds of a comparison: two sides measured in turn, so that other load on the machine affects both.

use std::future::Future;

use serde::{Deserialize, Serialize};

/// The measurements of all rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// Measurements of the chat API, one for each round.
    pub ours: Vec<f64>,
    /// Measurements of the other side, one for each round.
    pub theirs: Vec<f64>,
    /// `ours` divided by `theirs`, for each round.
    pub ratios: Vec<f64>,
}

impl Rounds {
    /// Measures both sides `rounds` times. Each side goes first in every other round.
    pub async fn measure<A, B, E>(
        rounds: usize,
        mut ours: impl FnMut(usize) -> A,
        mut theirs: impl FnMut(usize) -> B,
    ) -> Result<Self, E>
    where
        A: Future<Output = Result<f64, E>>,
        B: Future<Output = Result<f64, E>>,
    {
        let mut measured = Self::default();
        for round in 0..rounds {
            let (our_value, their_value) = if round % 2 == 0 {
                let our_value = ours(round).await?;
                (our_value, theirs(round).await?)
            } else {
                let their_value = theirs(round).await?;
                (ours(round).await?, their_value)
            };
            measured.push(our_value, their_value);
        }
        Ok(measured)
    }

    /// Adds the measurements of a round.
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratios.push(ours / theirs);
    }
}

/// Returns the median, or 0 if there are no values. The median of an even number of values is the mean of the two middle
/// ones.
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
    fn computes_the_median() {
        assert!((median(&[9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
