//! The merge policy: merges small segments early and large ones late.

use tantivy::SegmentMeta;
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};

/// Segments with fewer documents than this count as equally small: commits of single messages are merged with each
/// other, not again and again into large segments.
const SMALL_SEGMENT_DOCS: u32 = 1_000;

/// Segments from [`SMALL_SEGMENT_DOCS`] up to this number of documents count as one tier: commits under load create
/// segments of these sizes.
const COMMIT_SEGMENT_DOCS: u32 = 10_000;

/// The least number of large segments of one tier that are merged together. A merge rewrites its segments, so the
/// greater this number is, the less often a message is rewritten. Each additional segment costs a search some
/// microseconds.
const LARGE_SEGMENTS_PER_MERGE: usize = 16;

/// Merges small segments early and large ones late.
#[derive(Debug)]
pub(crate) struct SizeTieredMergePolicy {
    small: LogMergePolicy,
    large: LogMergePolicy,
}

impl Default for SizeTieredMergePolicy {
    fn default() -> Self {
        let (mut small, mut large) = (LogMergePolicy::default(), LogMergePolicy::default());
        small.set_min_layer_size(SMALL_SEGMENT_DOCS);
        large.set_min_layer_size(COMMIT_SEGMENT_DOCS);
        large.set_min_num_segments(LARGE_SEGMENTS_PER_MERGE);
        Self { small, large }
    }
}

impl MergePolicy for SizeTieredMergePolicy {
    fn compute_merge_candidates(&self, segments: &[SegmentMeta]) -> Vec<MergeCandidate> {
        let (small, large): (Vec<_>, Vec<_>) =
            segments.iter().cloned().partition(|segment| segment.num_docs() < SMALL_SEGMENT_DOCS);
        let mut merges = self.small.compute_merge_candidates(&small);
        merges.extend(self.large.compute_merge_candidates(&large));
        merges
    }
}

#[cfg(test)]
mod tests {
    use tantivy::Index;
    use tantivy::index::SegmentId;

    use super::*;
    use crate::schema::schema;

    /// The number of segments in each merge, given the sizes of all segments.
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
        let two_tiers: Vec<u32> = (0..16).map(|index| 1_000 + index * 500).chain([300_000; 15]).collect();
        assert_eq!(merge_sizes(&two_tiers), [16]);
    }
}
