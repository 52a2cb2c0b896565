#![no_main]

libfuzzer_sys::fuzz_target!(|case: &[u8]| chat_fuzz::log_anchors::check(case));
