#![no_main]

libfuzzer_sys::fuzz_target!(|case: &[u8]| chat_fuzz::event_filters::check(case));
