#![no_main]

libfuzzer_sys::fuzz_target!(|case: &[u8]| chat_fuzz::replay_files::check(case));
