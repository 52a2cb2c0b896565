//! Which segments are merged, and when.

use tantivy::SegmentMeta;
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};

/// Segments with fewer documents than this count as equally small: single messages are merged with each other, not
/// again and again into what is already large.
const SMALL: u32 = 1_000;

/// Larger segments with fewer documents than this, which commits under load leave, count as alike too.
const OF_A_COMMIT: u32 = 10_000;

/// So many segments of one size are merged, of those that are not small. Merging reads and writes all that is in them, so
/// that a message is merged as often as its segment grows by this factor; a search looks at each segment, which costs it
/// some microseconds.
const MANY: usize = 16;

/// Merges small segments early and others late.
#[derive(Debug)]
pub(super) struct Merges {
    small: LogMergePolicy,
    others: LogMergePolicy,
}

impl Default for Merges {
    fn default() -> Self {
        let (mut small, mut others) = (LogMergePolicy::default(), LogMergePolicy::default());
        small.set_min_layer_size(SMALL);
        others.set_min_layer_size(OF_A_COMMIT);
        others.set_min_num_segments(MANY);
        Self { small, others }
    }
}

impl MergePolicy for Merges {
    fn compute_merge_candidates(&self, segments: &[SegmentMeta]) -> Vec<MergeCandidate> {
        let (small, others): (Vec<_>, Vec<_>) =
            segments.iter().cloned().partition(|segment| segment.num_docs() < SMALL);
        let mut merges = self.small.compute_merge_candidates(&small);
        merges.extend(self.others.compute_merge_candidates(&others));
        merges
    }
}

#[cfg(test)]
mod tests {
    use tantivy::Index;
    use tantivy::index::SegmentId;

    use super::super::schema::schema;
    use super::*;

    /// How many segments of each merge there are, of these sizes.
    fn merged(sizes: &[u32]) -> Vec<usize> {
        let index = Index::create_in_ram(schema().0);
        let segments: Vec<_> =
            sizes.iter().map(|size| index.new_segment_meta(SegmentId::generate_random(), *size)).collect();
        Merges::default().compute_merge_candidates(&segments).iter().map(|merge| merge.0.len()).collect()
    }

    #[test]
    fn small_segments_are_merged_early_and_by_themselves() {
        assert_eq!(merged(&[1, 2, 900, 1, 1, 50, 1, 2_000]), Vec::<usize>::new());
        assert_eq!(merged(&[1, 2, 900, 1, 1, 50, 1, 1, 2_000]), [8]);
    }

    #[test]
    fn those_of_commits_under_load_wait_for_more_of_their_kind() {
        assert_eq!(merged(&[2_000; 15]), Vec::<usize>::new());
        let of_two_sizes: Vec<u32> = (0..16).map(|index| 1_000 + index * 500).chain([300_000; 15]).collect();
        assert_eq!(merged(&of_two_sizes), [16]);
    }
}
