//! The files in `systemd/`: the unit is sound and hardened, the example configuration can be used as it is.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// The unit with the path of the binary that was built for this test, so that its programs exist.
fn unit(dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(folder().join("edge-agent.service")).expect("the unit is there");
    assert!(text.contains("/usr/local/bin/edge-agent run"));
    let path = dir.join("edge-agent.service");
    std::fs::write(
        &path,
        text.replace("/usr/local/bin/edge-agent", env!("CARGO_BIN_EXE_edge-agent")),
    )
    .expect("the test's folder can be written");
    path
}

fn systemd_analyze(arguments: &[&str], unit: &Path) -> Output {
    let run = Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .env("SYSTEMD_COLORS", "0")
        .output();
    run.expect("systemd-analyze is part of the package systemd; make setup installs it")
}

#[test]
fn the_unit_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let checked = systemd_analyze(&["verify"], &unit(dir.path()));
    let said = String::from_utf8_lossy(&checked.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("edge-agent")).collect();
    assert!(checked.status.success() && ours.is_empty(), "{said}");
}

/// systemd restarts a unit whose ExecStartPre= fails, whatever its exit status: a typing error would be tried every two seconds.
#[test]
fn a_wrong_configuration_is_the_main_process_s_to_refuse() {
    let text = std::fs::read_to_string(folder().join("edge-agent.service")).unwrap();
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key)
        .collect();
    assert!(!keys.contains(&"ExecStartPre"));
    assert!(text.contains("RestartPreventExitStatus=64"));
    let dir = tempfile::tempdir().unwrap();
    for (wrong, named) in [
        ("[buffer]\nmax_byte = 1\n", "max_byte"),
        (
            "[mqtt.tls]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"/nowhere.pem\"\nkey_file = \"/nowhere.key\"\n",
            "mqtt.tls: /nowhere.pem",
        ),
    ] {
        for command in ["check", "run"] {
            let ran = outside(dir.path(), command, wrong);
            let said = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(64), "{command}: {said}");
            assert!(said.contains(named), "{command}: {said}");
        }
    }
}

/// What a command says of a small configuration and `more`, started by a person.
fn outside(dir: &Path, command: &str, more: &str) -> Output {
    let file = dir.join("edge-agent.toml");
    let data = dir.join("data");
    let text = format!("agent = \"p0\"\ndata_dir = {data:?}\n[kafka]\nbootstrap = \"127.0.0.1:1\"\n{more}");
    std::fs::write(&file, text).expect("the test's folder can be written");
    let ran = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
        .args([command, "--config"])
        .arg(&file)
        .env_remove("CREDENTIALS_DIRECTORY")
        .output();
    ran.expect("the binary was built for this test")
}

/// systemd's credentials are there for the service alone; the check before an upgrade is made without them.
#[test]
fn what_comes_as_a_credential_is_no_fault_to_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let more = "username = \"p0\"\n[mqtt.tls]\nlisten = \"127.0.0.1:0\"\n";
    let checked = outside(dir.path(), "check", more);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success() && said.contains("LoadCredential"),
        "{checked:?}"
    );
    let ran = outside(dir.path(), "run", more);
    assert_eq!(ran.status.code(), Some(64), "only the service has them");
}

#[test]
fn the_unit_is_hardened_to_a_score_of_1_5() {
    let dir = tempfile::tempdir().unwrap();
    // The threshold is in tenths; above it the exit code is 1.
    let checked = systemd_analyze(
        &["security", "--offline=yes", "--threshold=15"],
        &unit(dir.path()),
    );
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

#[test]
fn the_example_configuration_can_be_used_with_and_without_its_comments() {
    let text = std::fs::read_to_string(folder().join("edge-agent.toml")).unwrap();
    let open = |line: &str| {
        let stripped = line.strip_prefix("# ").unwrap_or(line);
        // Files of the owner's own are not there when this runs; tests of their keys are elsewhere.
        let own_files = ["users_file", "ca_file", "username", "mechanism", "password_file"];
        let is_example = (stripped.contains(" = ") || stripped.starts_with('['))
            && !own_files.iter().any(|key| stripped.starts_with(key));
        if is_example && !stripped.contains(": ") {
            stripped.to_owned()
        } else {
            line.to_owned()
        }
    };
    let opened: Vec<_> = text.lines().map(open).collect();
    assert!(opened.contains(&"[[generic]]".to_owned()));
    // An age limit is refused without dropping: the comment above it says so.
    let opened = opened
        .join("\n")
        .replace("when_full = \"reject\"", "when_full = \"drop-oldest\"");
    for text in [text, opened] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let config = edge_agent::config::Config::load(file.path(), |_| None);
        assert!(config.is_ok(), "{}\n{text}", config.unwrap_err());
    }
}
