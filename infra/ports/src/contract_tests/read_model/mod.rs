//! The contract suite of the read model port. An adapter runs it with `read_model_contract!(open)`, where
//! `open(folder)` opens the write side and the query side of the read model of that folder. The first call for a folder
//! creates the read model.
//!
//! Three cases need more than `open`, so an adapter calls them in tests of its own: [`a_named_lock_has_one_holder`],
//! [`a_dry_run_leaves_nothing`] and [`tables_without_senders_are_extended_in_place`].

mod commits;
mod dead_letters;
mod locks;
mod pages;
mod queries;
mod retries;
pub mod rows;
mod senders;

pub use commits::*;
pub use dead_letters::*;
pub use locks::*;
pub use pages::*;
pub use queries::*;
pub use retries::{retry, retry_queries};
pub use senders::*;

/// Runs the contract suite on one adapter.
#[macro_export]
macro_rules! read_model_contract {
    ($open:path: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                let open = || $crate::contract_tests::read_model::retry_queries($open(folder.path()));
                $crate::contract_tests::read_model::$case(open).await;
            }
        )+
    };
    ($open:path) => {
        $crate::read_model_contract! { $open:
            a_new_read_model_is_empty_and_at_the_start
            rows_are_read_back_as_they_were_written
            changed_rows_replace_the_old_ones
            the_error_says_whether_the_app_the_chat_or_the_message_is_missing
            a_deleted_message_is_absent_from_pages_and_reported_as_deleted
            a_message_created_and_deleted_in_one_commit_leaves_a_tombstone
            apps_are_listed_in_the_order_of_their_creation
            chats_are_listed_by_number
            pages_report_whether_older_and_newer_messages_exist
            a_page_around_a_message_fills_up_from_the_other_side
            pages_skip_deleted_messages
            an_empty_page_reports_the_messages_beyond_its_window
            a_page_of_large_messages_ends_early_and_reports_the_messages_beyond_it
            changes_that_do_not_start_at_the_checkpoint_are_refused_and_change_nothing
            many_messages_at_once_are_stored_together_or_not_at_all
            changes_of_another_log_are_refused
            a_new_incarnation_of_the_log_is_adopted_at_the_same_position
            a_new_read_model_adopts_a_log
            an_empty_commit_moves_the_checkpoint
            committed_rows_outlive_the_writer
            loads_omit_missing_rows
            pending_dead_letters_are_listed_by_position
            dead_letters_are_resolved_and_discarded
            dead_letters_are_listed_with_the_count_of_waiting_ones
            the_digest_differs_for_different_content
            a_query_sees_one_position
            the_largest_body_and_odd_text_are_kept
            senders_and_data_are_read_back_as_they_were_written
            an_edit_keeps_replaces_or_removes_the_data
            pages_of_one_sender_hold_no_other_messages
        }
    };
}
