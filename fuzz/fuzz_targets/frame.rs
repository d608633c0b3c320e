//! Frames with offload requests, through a whole switch on in-memory ports.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| tests::hostile::bear(script));
