//! The fuzz targets' corpora, as a regression: whatever was once worth keeping is borne.

use std::fs;
use std::path::PathBuf;

use tests::hostile;

/// The inputs of a target, by the names of their files.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).expect("the corpus is part of the repository");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "only {} inputs in {}", files.len(), directory.display());
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[test]
fn frames_are_borne() {
    for (file, script) in corpus("frame") {
        println!("{}", file.display());
        hostile::bear(&script);
    }
}

#[test]
fn configurations_are_read_or_refused() {
    for (file, bytes) in corpus("config") {
        println!("{}", file.display());
        if let Ok(text) = std::str::from_utf8(&bytes) {
            hostile::configure(text);
        }
    }
}
