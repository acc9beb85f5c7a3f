//! Root for a user who is not: a small disk has to be mounted, and only root may.
//!
//! Nothing outside is changed: what is mounted is gone with the program.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

/// Runs this program again as root of a user and a mount namespace of its own. Returns where it is root already, or where a user
/// may not make them; then nothing can be mounted.
pub fn enter() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--"]);
        command
    };
    let mut tried = unshare();
    tried.arg("true").stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    if tried.status().is_ok_and(|status| status.success()) {
        let error = unshare().arg(program).args(std::env::args_os().skip(1)).exec();
        eprintln!("faults: cannot run in a namespace: {error}");
    }
}
