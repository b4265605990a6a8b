//! The C library as programs have it: installed below a directory, and compiled against.
//!
//! The library is built in the profile of the tests, as the command `mailstow` is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::c_interface;
use crate::mailstow::{cargo_build, owner};
use crate::scratch::Scratch;

/// Builds the library and installs it. Returns the prefix, which belongs to this process.
pub fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let built = build();
        let prefix = built.join("c-library");
        let mut install = Command::new(c_interface::directory().join("install"));
        install.arg("--built").arg(&built);
        install.arg("--prefix").arg(&prefix);
        succeed(&mut install);
        prefix
    })
}

/// Where cargo leaves the library.
fn build() -> PathBuf {
    let messages = cargo_build(&["--lib"]);
    messages
        .iter()
        .filter_map(|message| message["filenames"].as_array())
        .flatten()
        .filter_map(|name| name.as_str().map(Path::new))
        .find(|name| name.ends_with("libmailstow.so"))
        .and_then(|library| library.parent().map(Path::to_owned))
        .expect("cargo names the library it built")
}

/// The shared object.
pub fn shared_object() -> PathBuf {
    installed().join("lib/libmailstow.so")
}

/// Runs a command to its end with the installed library in its environment.
pub fn with_library(command: &mut Command) -> &mut Command {
    let library = installed().join("lib");
    command
        .env("LD_LIBRARY_PATH", &library)
        .env("PKG_CONFIG_PATH", library.join("pkgconfig"))
}

/// Runs a command that must succeed.
///
/// # Panics
/// When it does not, with what it wrote.
pub fn succeed(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The options of every compilation of C here.
pub const C11: &[&str] = &["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];

/// Compiles a C program and links it with the installed library.
pub fn compile(source: &Path, options: &[&str], program: &Path) {
    let prefix = installed();
    let mut cc = Command::new("cc");
    cc.args(C11).args(options).arg(source);
    cc.arg("-I").arg(prefix.join("include"));
    cc.arg("-L").arg(prefix.join("lib")).arg("-lmailstow");
    cc.arg("-lpthread").arg("-o").arg(program);
    succeed(&mut cc);
}

/// A directory with a `mailstow.toml` for info@ and sales@ (Maildirs) and box@ (an mbox) of
/// example.com, below `vhosts`; all@ is an alias of info@ and box@.
pub fn site(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let owner = owner();
    scratch.mkdir("vhosts");
    scratch.mkdir_owned("vhosts/example.com", owner, owner);
    let root = scratch.path().display();
    let toml = format!(
        r#"state_directory = "{root}/state"
[routing]
virtual_mailbox_base = "{root}/vhosts"
virtual_mailbox_domains = "example.com"
virtual_mailbox_maps = """inline:{{
  {{info@example.com = example.com/info/}}, {{sales@example.com = example.com/sales/}},
  {{box@example.com = example.com/box}}}}"""
virtual_alias_maps = "inline:{{{{all@example.com = info@example.com, box@example.com}}}}"
virtual_uid_maps = "static:{owner}"
virtual_gid_maps = "static:{owner}"
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
[lmtp]
listen = ["unix:{root}/lmtp"]
"#
    );
    scratch.write("mailstow.toml", toml);
    scratch
}
