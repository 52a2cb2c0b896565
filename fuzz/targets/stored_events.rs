#![no_main]

libfuzzer_sys::fuzz_target!(|case: &[u8]| chat_fuzz::stored_events::check(case));
