//! The merge policy: merges small segments early and large ones late.

use tantivy::SegmentMeta;
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};

/// Segments with fewer documents than this count as equally small: commits of single messages are merged with each
/// other, not again and again into large segments.
const SMALL_SEGMENT_DOCS: u32 = 1_000;

/// Segments from [`SMALL_SEGMENT_DOCS`] up to this number of documents count as one tier: commits under load create
/// segments of these sizes.
const COMMIT_SEGMENT_DOCS: u32 = 10_000;

/// The least number of large segments of one tier that are merged together in an index that is live. A merge rewrites
/// its segments, so the greater this number is, the less often a message is rewritten. Each additional segment costs a
/// search some microseconds.
const LARGE_SEGMENTS_PER_MERGE: usize = 16;

/// The same number while the index catches up with the log. More segments are merged at once, so that a message is
/// rewritten once instead of twice. The segments' files are mapped into memory, and the operating system limits the
/// number of mappings, so merges are not deferred altogether.
const LARGE_SEGMENTS_PER_CATCH_UP_MERGE: usize = 64;

/// Merges small segments early and large ones late.
#[derive(Debug)]
pub(crate) struct SizeTieredMergePolicy {
    small: LogMergePolicy,
    large: LogMergePolicy,
}

impl SizeTieredMergePolicy {
    /// The policy of an index that has caught up with the log.
    pub fn live() -> Self {
        Self::new(LARGE_SEGMENTS_PER_MERGE)
    }

    /// The policy of an index that catches up with the log.
    pub fn catching_up() -> Self {
        Self::new(LARGE_SEGMENTS_PER_CATCH_UP_MERGE)
    }

    fn new(large_segments_per_merge: usize) -> Self {
        let (mut small, mut large) = (LogMergePolicy::default(), LogMergePolicy::default());
        small.set_min_layer_size(SMALL_SEGMENT_DOCS);
        large.set_min_layer_size(COMMIT_SEGMENT_DOCS);
        large.set_min_num_segments(large_segments_per_merge);
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

    /// The number of segments in each merge of a live index, given the sizes of all segments.
    fn merge_sizes(sizes: &[u32]) -> Vec<usize> {
        merge_sizes_by(&SizeTieredMergePolicy::live(), sizes)
    }

    fn merge_sizes_by(policy: &SizeTieredMergePolicy, sizes: &[u32]) -> Vec<usize> {
        let index = Index::create_in_ram(schema().0);
        let segments: Vec<_> =
            sizes.iter().map(|size| index.new_segment_meta(SegmentId::generate_random(), *size)).collect();
        policy.compute_merge_candidates(&segments).iter().map(|merge| merge.0.len()).collect()
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

    #[test]
    fn an_index_that_catches_up_merges_large_segments_later() {
        let catching_up = SizeTieredMergePolicy::catching_up();
        assert_eq!(merge_sizes_by(&catching_up, &[30_000; 63]), Vec::<usize>::new());
        assert_eq!(merge_sizes_by(&catching_up, &[30_000; 64]), [64]);
        assert_eq!(merge_sizes_by(&catching_up, &[10; 8]), [8]);
    }
}
