//! The C library keeps what its header promises, for programs in C, C++ and Python.
//!
//! Method: the library is built and installed below a directory as `ffi/install` does it; then
//! `ffi/tests/rules.c` checks each promise in a separate process and directory, `client.c` those of
//! the client mode beside a server, and `ffi/examples/run` runs the examples; as they are, under
//! AddressSanitizer and under valgrind. The header, the manual pages, the exported symbols and the
//! numbers of results are compared with what is committed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mailstow_tests::c_library::{
    C11, compile, installed, shared_object, site, succeed, with_library,
};
use mailstow_tests::mailstow::{binary, owner};
use mailstow_tests::{Scratch, c_interface, c_manual};

const REMEDY: &str = "run: cargo run -p mailstow-tests --bin c-interface";

/// Longest run of one program, under valgrind on a busy machine.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

#[test]
fn the_committed_header_and_manual_pages_are_made_from_the_code() {
    let ffi = c_interface::directory();
    let header = c_interface::header();
    let committed = fs::read_to_string(ffi.join("include/mailstow.h")).expect("the header");
    assert!(
        header == committed,
        "ffi/include/mailstow.h is old; {REMEDY}"
    );
    let made: BTreeMap<String, String> = c_manual::pages(&header).into_iter().collect();
    assert!(made.len() > 50, "one page for each function");
    let pages = fs::read_dir(ffi.join("man3")).expect("the manual pages");
    let committed: BTreeMap<String, String> = pages
        .map(|page| page.expect("readdir").path())
        .map(|page| {
            let name = page.file_name().expect("a name").to_string_lossy();
            (
                name.into_owned(),
                fs::read_to_string(&page).expect("a page"),
            )
        })
        .collect();
    assert!(made == committed, "ffi/man3 is old; {REMEDY}");
}

#[test]
fn the_library_exports_the_listed_symbols_and_is_named_for_its_version() {
    let object = shared_object();
    let nm = succeed(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(&object),
    );
    let text = String::from_utf8_lossy(&nm.stdout);
    let found: Vec<&str> = text.lines().filter_map(|line| line.get(19..)).collect();
    let list = c_interface::directory().join("abi/symbols.txt");
    let listed = fs::read_to_string(&list).expect("abi/symbols.txt");
    let listed: Vec<&str> = listed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(found, listed, "the symbols of the library");
    let declared: Vec<String> = c_manual::pages(&c_interface::header())
        .into_iter()
        .filter_map(|(name, _)| name.strip_suffix(".3").map(str::to_owned))
        .filter(|name| name != "libmailstow")
        .collect();
    for symbol in &declared {
        assert!(listed.contains(&symbol.as_str()), "{symbol} is not listed");
    }
    assert_eq!(declared.len(), listed.len(), "one declaration each");

    let undefined = succeed(Command::new("nm").args(["-D", "-u"]).arg(&object));
    let undefined = String::from_utf8_lossy(&undefined.stdout);
    for handler in ["atexit", "on_exit", "at_quick_exit"] {
        let calls = undefined
            .split_whitespace()
            .any(|symbol| symbol.split('@').next() == Some(handler));
        assert!(!calls, "the library calls {handler}");
    }

    let dynamic = succeed(Command::new("readelf").arg("-d").arg(&object));
    let dynamic = String::from_utf8_lossy(&dynamic.stdout);
    let mut parts = env!("CARGO_PKG_VERSION").split('.');
    let (major, minor) = (parts.next(), parts.next());
    let suffix = match (major, minor) {
        (Some("0"), Some(minor)) => format!("0.{minor}"),
        (major, _) => major.expect("a version").to_owned(),
    };
    let soname = format!("libmailstow.so.{suffix}");
    assert!(
        dynamic.contains(&format!("soname: [{soname}]")),
        "{dynamic}"
    );
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    let link = installed().join("lib").join(soname);
    assert!(link.exists(), "{} leads to the library", link.display());
}

#[test]
fn results_keep_the_numbers_that_they_were_given() {
    let list = c_interface::directory().join("abi/results.txt");
    let listed = fs::read_to_string(list).expect("abi/results.txt");
    let mut numbers = BTreeMap::new();
    for line in listed.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (number, name) = (words.next().expect(line), words.next().expect(line));
        let before = numbers.insert(number, (name, words.next() == Some("retired")));
        assert_eq!(before, None, "{number} was given twice");
    }
    let header = c_interface::header();
    let defined: BTreeMap<&str, &str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define MAILSTOW_"))
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, number)| *name == "OK" || number.starts_with("65") && number.len() == 4)
        .map(|(name, number)| (number, name))
        .collect();
    for (number, (name, is_retired)) in &numbers {
        let found = defined.get(number).map(|name| format!("MAILSTOW_{name}"));
        match is_retired {
            true => assert_eq!(found, None, "{number} is retired"),
            false => assert_eq!(found.as_deref(), Some(*name), "{number}"),
        }
    }
    for (number, name) in defined {
        assert!(
            numbers.contains_key(number),
            "MAILSTOW_{name} is not listed"
        );
    }
}

#[test]
fn the_header_compiles_as_c11_and_as_cpp17_and_programs_link_with_both_libraries() {
    let scratch = Scratch::new("header");
    let prefix = installed();
    let c = scratch.write(
        "version.c",
        "#include <mailstow.h>\n\
         int main(void) { return mailstow_abi_version() == MAILSTOW_ABI_VERSION ? 0 : 1; }\n",
    );
    compile(&c, &[], &scratch.join("shared"));
    succeed(with_library(&mut Command::new(scratch.join("shared"))));

    // What pkg-config says is enough for a static program, too.
    let flags = |arguments: &[&str]| {
        let mut pkg_config = Command::new("pkg-config");
        let output = succeed(
            with_library(&mut pkg_config)
                .args(arguments)
                .arg("mailstow"),
        );
        let flags = String::from_utf8(output.stdout).expect("UTF-8");
        flags
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut cc = Command::new("cc");
    cc.arg(&c).arg("-o").arg(scratch.join("static"));
    cc.args(flags(&["--cflags"]))
        .arg(prefix.join("lib/libmailstow.a"));
    let libraries = flags(&["--libs", "--static"]);
    cc.args(libraries.iter().filter(|flag| *flag != "-lmailstow"));
    succeed(&mut cc);
    succeed(&mut Command::new(scratch.join("static")));
    let mut cc = Command::new("cc");
    cc.args(["-static", "-o"])
        .arg(scratch.join("whole"))
        .arg(&c);
    succeed(cc.args(flags(&["--cflags", "--libs", "--static"])));
    succeed(&mut Command::new(scratch.join("whole")));

    let cpp = scratch.write(
        "version.cc",
        "#include <mailstow.h>\n\
         int main() {\n\
             mailstow_reply reply{};\n\
             reply.struct_size = sizeof reply;\n\
             return mailstow_check_recipient(nullptr, \"\", 0, 0, &reply) == MAILSTOW_NULL ? 0 : 1;\n\
         }\n",
    );
    let mut cxx = Command::new("g++");
    cxx.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic"]);
    cxx.arg(cpp).arg("-o").arg(scratch.join("cpp"));
    cxx.args(flags(&["--cflags", "--libs"]));
    succeed(&mut cxx);
    succeed(with_library(&mut Command::new(scratch.join("cpp"))));
}

#[test]
fn the_library_is_put_below_a_directory_for_machines_without_rust() {
    let scratch = Scratch::new("destdir");
    let built = installed().parent().expect("a directory");
    let mut install = Command::new(c_interface::directory().join("install"));
    install
        .arg("--built")
        .arg(built)
        .args(["--prefix", "/opt/x"]);
    succeed(install.env("DESTDIR", scratch.path()));
    let place = scratch.join("opt/x");
    let pc = fs::read_to_string(place.join("lib/pkgconfig/mailstow.pc")).expect("a file");
    assert!(pc.starts_with("prefix=/opt/x\n"), "{pc}");
    for name in [
        "lib/libmailstow.so",
        "lib/libmailstow.a",
        "include/mailstow.h",
        "share/man/man3/libmailstow.3",
    ] {
        assert!(place.join(name).exists(), "{name}");
    }
}

#[test]
fn a_library_is_installed_without_what_only_debuggers_read() {
    let scratch = Scratch::new("stripped");
    let built = installed().parent().expect("a directory");
    let mut install = Command::new(c_interface::directory().join("install"));
    install.arg("--built").arg(built).arg("--strip");
    succeed(install.arg("--prefix").arg(scratch.path()));
    let object = scratch.join("lib/libmailstow.so");
    let sections = succeed(Command::new("readelf").arg("-SW").arg(&object));
    let sections = String::from_utf8_lossy(&sections.stdout);
    for name in [".debug_info", ".debug_line", ".symtab"] {
        assert!(!sections.contains(name), "{sections}");
    }
    let c = scratch.write(
        "version.c",
        "#include <mailstow.h>\n\
         int main(void) { return mailstow_abi_version() == MAILSTOW_ABI_VERSION ? 0 : 1; }\n",
    );
    for library in ["libmailstow.so", "libmailstow.a"] {
        let mut cc = Command::new("cc");
        cc.arg("-I").arg(scratch.join("include")).arg(&c);
        cc.arg(scratch.join("lib").join(library)).arg("-lm");
        succeed(cc.arg("-o").arg(scratch.join("program")));
        let mut program = Command::new(scratch.join("program"));
        succeed(program.env("LD_LIBRARY_PATH", scratch.join("lib")));
    }
}

/// The first library with the SONAME of today, as a linker sees it: its symbols, and no code.
fn stub_of_first_library(scratch: &Scratch, frozen: &Path) -> PathBuf {
    let symbols = fs::read_to_string(frozen.join("symbols.txt")).expect("symbols");
    let symbols = symbols.lines().filter(|line| !line.starts_with('#'));
    let functions = symbols.map(|name| format!("void {name}(void) {{}}\n"));
    let source = scratch.write("stub.c", functions.collect::<String>());
    let library = scratch.join("libmailstow.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-Wl,-soname,libmailstow.so.0.1"]);
    succeed(cc.arg(source).arg("-o").arg(&library));
    library
}

#[test]
fn a_program_built_against_the_first_library_of_this_name_still_runs() {
    let frozen = c_interface::directory().join("abi/0.1");
    let scratch = Scratch::new("first");
    let stub = stub_of_first_library(&scratch, &frozen);
    let program = scratch.join("program");
    let mut cc = Command::new("cc");
    cc.args(C11).arg(frozen.join("program.c")).arg(stub);
    succeed(cc.arg("-o").arg(&program));
    let site = site("first-site");
    succeed(with_library(Command::new(&program).arg(site.path())));
}

/// Runs a program to its end.
fn run(mut command: Command) -> Output {
    let mut child = with_library(&mut command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let until = Instant::now() + PROGRAM_LIMIT;
    while child.try_wait().expect("our own child").is_none() {
        if Instant::now() > until {
            child.kill().expect("our own child");
            let output = child.wait_with_output().expect("our own child");
            panic!("{command:?} does not end: {output:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("our own child")
}

const ASAN: &[&str] = &["-O1", "-fsanitize=address", "-fno-omit-frame-pointer"];

fn rules_source() -> PathBuf {
    c_interface::directory().join("tests/rules.c")
}

fn client_source() -> PathBuf {
    c_interface::directory().join("tests/client.c")
}

fn names_of_rules(program: &Path) -> Vec<String> {
    let list = succeed(with_library(Command::new(program).arg("--list")));
    let text = String::from_utf8(list.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// Runs each rule in a separate directory, two at a time; `under` comes before the program.
fn check_rules(program: &Path, under: &[&str], names: Vec<String>) {
    assert!(!names.is_empty(), "there are rules");
    let waiting = Mutex::new(names);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(name) = waiting.lock().expect("no panic").pop() else {
                return;
            };
            let site = site("rules");
            let words = under.iter().map(|word| (*word).into());
            let mut words = words.chain([program.as_os_str().to_owned()]);
            let mut command = Command::new(words.next().expect("a program"));
            command.args(words).arg(site.path()).arg(&name);
            command.env("MAILSTOW", binary()).env_remove("RUST_LOG");
            let output = run(command);
            // 77: it takes root.
            let is_good = output.status.code() == Some(0)
                || output.status.code() == Some(77) && owner() != 5000;
            let wrong = foreign_files(&site.join("vhosts"));
            if !is_good || !wrong.is_empty() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let failure = format!("{name}: {}\n{text}{wrong:?}", output.status);
                failures.lock().expect("no panic").push(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Everything below a directory that does not belong to the owner of the mailboxes.
fn foreign_files(directory: &Path) -> Vec<PathBuf> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(data) = fs::symlink_metadata(&path) else {
            continue;
        };
        if data.uid() != owner() {
            wrong.push(path.clone());
        }
        if data.is_dir() {
            wrong.extend(foreign_files(&path));
        }
    }
    wrong
}

#[test]
fn every_rule_of_the_header_holds() {
    let scratch = Scratch::new("c-rules");
    let program = scratch.join("rules");
    compile(&rules_source(), &["-O1"], &program);
    check_rules(&program, &[], names_of_rules(&program));
}

#[test]
fn every_rule_of_the_client_mode_holds() {
    let scratch = Scratch::new("c-client");
    let program = scratch.join("client");
    compile(&client_source(), &["-O1"], &program);
    check_rules(&program, &[], names_of_rules(&program));
}

#[test]
fn every_rule_of_the_client_mode_holds_under_the_address_sanitizer() {
    let scratch = Scratch::new("c-client-asan");
    let program = scratch.join("client");
    compile(&client_source(), ASAN, &program);
    let mut names = names_of_rules(&program);
    // A child may find a lock of the sanitizer held by a thread that it has not.
    names.retain(|name| !name.contains("child"));
    check_rules(&program, &[], names);
}

#[test]
fn every_rule_holds_under_the_address_sanitizer() {
    let scratch = Scratch::new("c-rules-asan");
    let program = scratch.join("rules");
    compile(&rules_source(), ASAN, &program);
    check_rules(&program, &[], names_of_rules(&program));
}

#[test]
fn every_rule_holds_under_valgrind() {
    let scratch = Scratch::new("c-rules-valgrind");
    let program = scratch.join("rules");
    compile(&rules_source(), &["-O1"], &program);
    let mut names = names_of_rules(&program);
    // /proc says which signals valgrind blocks in a thread, not which ones the program does.
    names.retain(|name| name != "threads_of_the_library_take_no_signals");
    // Lost memory is found by the address sanitizer, which knows tagged pointers.
    // Valgrind runs one thread at a time: they take turns, so that none waits for another's loop.
    let under = [
        "valgrind",
        "-q",
        "--error-exitcode=99",
        "--leak-check=no",
        "--fair-sched=yes",
    ];
    check_rules(&program, &under, names);
}

/// Runs `ffi/examples/run`; a line for each example.
fn run_examples(variables: &[(&str, &str)]) {
    let mut command = Command::new(c_interface::directory().join("examples/run"));
    command.env("MAILSTOW", binary()).env_remove("RUST_LOG");
    command.envs(variables.iter().copied());
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let names: Vec<String> = text.lines().filter_map(first).collect();
    let mut expected = vec!["deliver", "lookup", "build_map", "lookup.py", "server"];
    if !variables.contains(&("FORKS", "no")) {
        expected.push("client");
    }
    assert_eq!(names, expected, "{text}{errors}");
}

#[test]
fn the_examples_do_what_they_say() {
    run_examples(&[]);
}

#[test]
fn the_examples_hold_under_the_address_sanitizer() {
    let variables = [
        ("CFLAGS", "-fsanitize=address"),
        // A child may find a lock of the sanitizer held by a thread that it has not.
        ("FORKS", "no"),
        ("SESSIONS", "500"),
        ("CHILDREN", "16"),
        ("MESSAGES", "480"),
    ];
    run_examples(&variables);
}

#[test]
fn the_examples_hold_under_valgrind() {
    let variables = [
        ("UNDER", "valgrind -q --error-exitcode=99 --leak-check=no"),
        ("SESSIONS", "100"),
        ("CHILDREN", "4"),
        ("MESSAGES", "80"),
    ];
    run_examples(&variables);
}
