//! Which segments are merged, and when.

use tantivy::SegmentMeta;
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};

/// Segments with fewer documents than this count as equally small: single messages are merged with each other, not
/// again and again into what is already large.
const SMALL_SEGMENT_DOCS: u32 = 1_000;

/// Larger segments with fewer documents than this, which commits under load leave, count as alike too.
const COMMIT_SEGMENT_DOCS: u32 = 10_000;

/// So many segments of one size are merged, of those that are not small. Merging reads and writes all that is in them, so
/// that a message is merged as often as its segment grows by this factor; a search looks at each segment, which costs it
/// some microseconds.
const LARGE_SEGMENTS_PER_MERGE: usize = 16;

/// Merges small segments early and others late.
#[derive(Debug)]
pub(super) struct SizeTieredMergePolicy {
    small: LogMergePolicy,
    large: LogMergePolicy,
}

impl Default for SizeTieredMergePolicy {
    fn default() -> Self {
        let (mut small, mut others) = (LogMergePolicy::default(), LogMergePolicy::default());
        small.set_min_layer_size(SMALL_SEGMENT_DOCS);
        others.set_min_layer_size(COMMIT_SEGMENT_DOCS);
        others.set_min_num_segments(LARGE_SEGMENTS_PER_MERGE);
        Self { small, large: others }
    }
}

impl MergePolicy for SizeTieredMergePolicy {
    fn compute_merge_candidates(&self, segments: &[SegmentMeta]) -> Vec<MergeCandidate> {
        let (small, others): (Vec<_>, Vec<_>) =
            segments.iter().cloned().partition(|segment| segment.num_docs() < SMALL_SEGMENT_DOCS);
        let mut merges = self.small.compute_merge_candidates(&small);
        merges.extend(self.large.compute_merge_candidates(&others));
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
    fn merge_sizes(sizes: &[u32]) -> Vec<usize> {
        let index = Index::create_in_ram(schema().0);
        let segments: Vec<_> =
            sizes.iter().map(|size| index.new_segment_meta(SegmentId::generate_random(), *size)).collect();
        SizeTieredMergePolicy::default()
            .compute_merge_candidates(&segments)
            .iter()
            .map(|merge| merge.0.len())
            .collect()
    }

    #[test]
    fn small_segments_are_merged_early_and_separately() {
        assert_eq!(merge_sizes(&[1, 2, 900, 1, 1, 50, 1, 2_000]), Vec::<usize>::new());
        assert_eq!(merge_sizes(&[1, 2, 900, 1, 1, 50, 1, 1, 2_000]), [8]);
    }

    #[test]
    fn larger_segments_wait_for_more_of_their_size() {
        assert_eq!(merge_sizes(&[2_000; 15]), Vec::<usize>::new());
        let of_two_sizes: Vec<u32> = (0..16).map(|index| 1_000 + index * 500).chain([300_000; 15]).collect();
        assert_eq!(merge_sizes(&of_two_sizes), [16]);
    }
}
