//! What the crate must never have: a Kafka client, or a statement that writes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Words of SQL that do something else than read.
const WRITING: [&str; 24] = [
    "insert",
    "update",
    "delete",
    "truncate",
    "merge",
    "create",
    "alter",
    "drop",
    "grant",
    "revoke",
    "copy",
    "lock",
    "call",
    "do",
    "notify",
    "refresh",
    "vacuum",
    "reindex",
    "cluster",
    "comment",
    "into",
    "nextval",
    "setval",
    "lo_create",
];

#[test]
fn no_kafka_client_is_linked() {
    // What only tests need is not linked, and no edge of the tree.
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--package",
            "homelab-api",
            "--edges",
            "normal,build",
        ])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let linked: HashSet<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        linked.contains("sqlx") && linked.contains("service"),
        "the tree is the service's: {linked:?}"
    );
    for name in &linked {
        assert!(!name.contains("kafka"), "{name} is linked");
    }
}

#[test]
fn no_statement_writes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut statements = 0;
    for path in files_below(&source) {
        let text = std::fs::read_to_string(&path).unwrap();
        // The tests' hostile input holds such words on purpose.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for literal in literals(code) {
            let words: Vec<_> = literal
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .map(str::to_lowercase)
                .collect();
            let is_sql = words
                .iter()
                .any(|word| ["select", "from", "with"].contains(&word.as_str()));
            if is_sql {
                statements += 1;
                for word in &words {
                    assert!(
                        !WRITING.contains(&word.as_str()),
                        "{}: {word} in {literal}",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(statements > 15, "the scan finds the statements: {statements}");
}

/// The files of a folder and of its folders, but for those that hold tests alone.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of this crate") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// The string literals of Rust code without comments of more than a line and without raw strings, which this crate has not.
fn literals(code: &str) -> Vec<String> {
    assert!(!code.contains("r#\""), "raw strings are not read here");
    let (mut found, mut literal) = (Vec::new(), None::<String>);
    for line in code.lines() {
        if literal.is_none() && line.trim_start().starts_with("//") {
            continue;
        }
        let mut escaped = false;
        for c in line.chars() {
            match (&mut literal, c) {
                (Some(text), _) if escaped => {
                    escaped = false;
                    text.push(c);
                }
                (Some(_), '\\') => escaped = true,
                (Some(_), '"') => found.extend(literal.take()),
                (Some(text), _) => text.push(c),
                (None, '"') => literal = Some(String::new()),
                (None, _) => {}
            }
        }
        if let Some(text) = &mut literal {
            text.push('\n');
        }
    }
    found
}
