//! Configurations, from their text to tables or to messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| tests::hostile::configure(text));
