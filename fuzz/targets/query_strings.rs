#![no_main]

libfuzzer_sys::fuzz_target!(|case: &[u8]| chat_fuzz::query_strings::check(case));
