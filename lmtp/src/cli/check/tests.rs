//! Tests of the checks: planted mistakes are named, and a configuration that serves passes.

use super::*;
use mailstow_engine::config::{Flags, RoutingSettings, Sources};
use mailstow_engine::route::Owners;
use mailstow_engine::sim::{Checkpoint, LogWriter, LogWriterSettings, Record, Sequence};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

/// A place with everything that `serve` needs, to plant mistakes in.
struct Site {
    directory: tempfile::TempDir,
    flags: Flags,
    toml: String,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["base", "state", "run"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        // A user without rights must be able to reach the base.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(
            directory.path().join("base"),
            fs::Permissions::from_mode(0o1777),
        )
        .unwrap();
        let path = |name: &str| directory.path().join(name);
        let flags = Flags {
            listen: vec![path("run/lmtp").display().to_string()],
            domains: vec!["d.example".to_owned()],
            base: Some(path("base")),
            state_directory: Some(path("state")),
        };
        Self {
            directory,
            flags,
            toml: String::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn findings(&self) -> Findings {
        let config = self.path("mailstow.toml");
        let directory = self.directory.path().display().to_string();
        fs::write(&config, self.toml.replace("@DIR@", &directory)).unwrap();
        let sources = Sources {
            config: Some(config),
            postfix: None,
            flags: self.flags.clone(),
            ..Sources::default()
        };
        let (configuration, problems) = Configuration::inspect(&sources).unwrap();
        let mut findings = Findings::default();
        inspect(&configuration, &problems, None, &mut findings);
        findings
    }

    fn only_error(&self) -> String {
        let mut findings = self.findings();
        assert_eq!(findings.errors.len(), 1, "{findings}");
        findings.errors.remove(0)
    }
}

#[test]
fn a_site_that_serves_has_no_findings() {
    let findings = Site::new().findings();
    assert_eq!(findings.to_string(), "everything is in order\n");
}

#[test]
fn all_planted_mistakes_are_found_at_once() {
    let mut site = Site::new();
    site.flags.domains.clear();
    site.flags.base = Some(site.path("missing/base"));
    site.flags.listen = vec![site.path("nowhere/lmtp").display().to_string()];
    site.toml = "[routing]\nvirtual_mailbox_domains = \"d.example\"\n\
                 virtual_mailbox_maps = \"hash:@DIR@/vmailbox\"\nvirtual_uid_maps = \"static:50\"\n\
                 virtual_alias_domains = \"hash:@DIR@/aliases\"\n"
        .to_owned();
    let findings = site.findings();
    for expected in [
        "virtual_mailbox_maps: table hash:",
        "virtual_alias_domains: table hash:",
        "virtual_gid_maps is not set",
        "virtual_uid_maps gives user id 50, below virtual_minimum_uid = 100",
        "does not exist and cannot be created in",
        "nowhere/lmtp: its directory cannot be written",
    ] {
        assert!(
            findings.errors.iter().any(|e| e.contains(expected)),
            "{expected}: {findings}"
        );
    }
    assert!(
        findings.to_string().ends_with("fix the errors first\n"),
        "{findings}"
    );
}

#[test]
fn a_malformed_table_line_and_a_domain_of_two_classes_are_warnings() {
    let mut site = Site::new();
    fs::write(site.path("vmailbox"), "a@d.example a/\nonly-a-key\n").unwrap();
    site.toml = "[routing]\nvirtual_mailbox_maps = \"hash:@DIR@/vmailbox\"\n\
                 mydestination = \"d.example\"\nvirtual_uid_maps = \"hash:@DIR@/ids\"\n\
                 virtual_gid_maps = \"hash:@DIR@/ids\"\n"
        .to_owned();
    fs::write(site.path("ids"), "@d.example 5000\n").unwrap();
    let findings = site.findings();
    assert!(findings.errors.is_empty(), "{findings}");
    assert!(
        findings.warnings.iter().any(|w| w.contains("vmailbox")),
        "{findings}"
    );
    assert!(
        findings
            .warnings
            .iter()
            .any(|w| w.contains("mydestination")),
        "{findings}"
    );
    assert!(
        findings.to_string().ends_with("mailstow serve works\n"),
        "{findings}"
    );
}

#[test]
fn transports_that_can_deliver_nothing_are_errors() {
    let mut site = Site::new();
    site.toml = "[transport]\nenabled = true\nlmtp_tls_security_level = \"verify\"\n\
                 tls_ca_file = \"/missing/ca.pem\"\n[routing]\n\
                 transport_maps = \"inline:{a@d.example=smtp:mx.example.org,\
                 b@d.example=lmtp:inet:host:99999,c@d.example=nowhere:x}\"\n"
        .to_owned();
    let errors = site.findings().errors.join("\n");
    for wrong in [
        "tls_ca_file /missing/ca.pem: ",
        "transport_maps names smtp:mx.example.org, ",
        "transport_maps names lmtp:inet:host:99999, ",
        "transport_maps names nowhere:x, ",
    ] {
        assert!(errors.contains(wrong), "{wrong}: {errors}");
    }
    site.toml =
        "[transport]\nenabled = true\n[routing]\ntransport_maps = \"hash:@DIR@/gone\"\n".to_owned();
    let errors = site.findings().errors.join("\n");
    assert!(errors.contains("transport_maps: table hash:"), "{errors}");
}

#[test]
fn tables_of_aliases_that_are_not_there_are_errors_where_they_are_used() {
    let mut site = Site::new();
    let aliases = "[routing]\nmydestination = \"host.example\"\n\
                   local_transport = \"local:\"\nmail_spool_directory = \"@DIR@/no-spool/\"\n\
                   alias_maps = \"nis:mail.aliases, hash:@DIR@/no-aliases\"\n\
                   virtual_alias_domains = \"\"\n\
                   virtual_alias_maps = \"hash:@DIR@/no-virtual\"\n";
    site.toml = aliases.to_owned();
    assert!(site.findings().errors.is_empty(), "{}", site.findings());
    site.toml = format!("[transport]\nenabled = true\n[lmtp]\nexpand_aliases = true\n{aliases}");
    let errors = site.findings().errors.join("\n");
    for wrong in [
        "alias_maps: table hash:",
        "no-aliases",
        "virtual_alias_maps: table hash:",
        "mail_spool_directory",
    ] {
        assert!(errors.contains(wrong), "{wrong}: {errors}");
    }
}

#[test]
fn an_alias_that_makes_root_the_postmaster_is_a_warning() {
    let mut site = Site::new();
    site.toml = "[transport]\nenabled = true\n[routing]\nmyhostname = \"host.example\"\n\
                 myorigin = \"host.example\"\nmydestination = \"host.example\"\n\
                 local_transport = \"local:\"\nmail_spool_directory = \"@DIR@/base/\"\n\
                 alias_maps = \"inline:{postmaster=root}\"\n"
        .to_owned();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let findings = site.findings();
    assert!(findings.errors.is_empty(), "{findings}");
    let warnings = findings.warnings.join("\n");
    assert!(
        warnings.contains("mail for postmaster is deferred: ") && warnings.contains("root"),
        "{findings}"
    );
    site.toml += "virtual_alias_maps = \"inline:{postmaster@host.example=x@d.example}\"\n";
    let warnings = site.findings().warnings.join("\n");
    assert!(!warnings.contains("postmaster"), "{warnings}");
}

#[test]
fn a_base_that_everyone_may_write_is_an_error() {
    let site = Site::new();
    fs::set_permissions(site.path("base"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        site.only_error().contains("may be written by everyone"),
        "{}",
        site.only_error()
    );
}

#[test]
fn a_base_that_serve_would_create_is_a_warning() {
    let mut site = Site::new();
    site.flags.base = Some(site.path("base/new"));
    let findings = site.findings();
    assert!(findings.errors.is_empty(), "{findings}");
    assert!(
        findings.warnings[0].contains("mailstow serve creates it"),
        "{findings}"
    );
    site.flags.base = Some(site.path("mailstow.toml"));
    assert!(
        site.only_error().contains("name a directory"),
        "{}",
        site.only_error()
    );
}

#[test]
fn a_living_socket_is_an_error_and_a_dead_one_is_not() {
    let site = Site::new();
    let socket = std::os::unix::net::UnixListener::bind(site.path("run/lmtp")).unwrap();
    assert!(site.only_error().contains("another server is listening"));
    drop(socket);
    assert!(site.findings().errors.is_empty(), "{}", site.findings());
    fs::remove_file(site.path("run/lmtp")).unwrap();
    fs::write(site.path("run/lmtp"), "").unwrap();
    assert!(site.only_error().contains("the file is no socket"));
}

#[test]
fn a_port_in_use_and_unknown_socket_owners_are_errors() {
    let mut site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    site.flags.listen = vec![format!("inet:127.0.0.1:{port}")];
    assert!(
        site.only_error()
            .contains("stop the server that has this port")
    );
    drop(taken);
    assert!(site.findings().errors.is_empty(), "{}", site.findings());
    // Each is free, but they exclude each other; :: and 0.0.0.0 do not.
    site.flags.listen = vec![
        format!("inet:0.0.0.0:{port}"),
        format!("inet:127.0.0.1:{port}"),
    ];
    assert!(site.only_error().contains(&format!("127.0.0.1:{port}")));
    site.flags.listen = vec![format!("inet:0.0.0.0:{port}"), format!("inet:[::]:{port}")];
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert!(site.findings().errors.is_empty(), "{}", site.findings());
    }
    site.flags.listen = vec![site.path("run/lmtp").display().to_string()];
    site.toml =
        "[lmtp]\nsocket_owner = \"no-such-user\"\nsocket_group = \"no-such-group\"\n".into();
    let findings = site.findings();
    assert_eq!(findings.errors.len(), 2, "{findings}");
}

#[test]
fn a_state_directory_is_made_later_but_must_be_possible() {
    let mut site = Site::new();
    site.flags.state_directory = Some(site.path("state/a/b"));
    assert!(site.findings().errors.is_empty(), "{}", site.findings());
    site.flags.state_directory = Some(site.path("mailstow.toml"));
    assert!(site.only_error().contains("--state-directory"));
    site.flags.state_directory = Some(site.path("mailstow.toml/x"));
    assert!(site.only_error().contains("--state-directory"));
}

#[test]
fn an_owner_we_cannot_become_is_an_error() {
    let routing = |uid: &str, gid: &str| RoutingSettings {
        virtual_mailbox_maps: "static:x/".into(),
        virtual_uid_maps: uid.into(),
        virtual_gid_maps: gid.into(),
        ..RoutingSettings::default()
    };
    let found = |euid: u32, routing: &RoutingSettings| {
        let mut findings = Findings::default();
        let owners = owners::check_as(euid, routing, &mut findings);
        (owners, findings.errors)
    };
    let (owners, errors) = found(0, &routing("static:5000", "static:5001"));
    assert_eq!(
        owners,
        Owners {
            uid: Some(5000),
            gid: Some(5001)
        }
    );
    assert!(errors.is_empty(), "{errors:?}");
    for (euid, uid, gid, expected) in [
        (
            1000,
            "static:5000",
            "static:5000",
            "mailstow runs as user id 1000",
        ),
        (0, "static:0", "static:5000", "never owned by 0"),
        (0, "static:vmail", "static:5000", "no numeric id"),
        (0, "static:5000", "", "virtual_gid_maps is not set"),
    ] {
        let (_, errors) = found(euid, &routing(uid, gid));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    }
}

#[test]
fn a_mistake_in_a_file_does_not_hide_the_others() {
    let mut site = Site::new();
    site.flags.domains.clear();
    site.flags.listen = vec![site.path("nowhere/lmtp").display().to_string()];
    site.toml = "[routing]\nrecipient_delimeter = \"+\"\nvirtual_uid_maps = \"static:50\"\n\
                 virtual_mailbox_limit = \"much\"\n"
        .to_owned();
    let findings = site.findings();
    for expected in [
        "mailstow.toml:2: unknown key recipient_delimeter",
        "virtual_mailbox_limit = much",
        "nowhere/lmtp: its directory cannot be written",
    ] {
        assert!(
            findings.errors.iter().any(|e| e.contains(expected)),
            "{expected}: {findings}"
        );
    }
    // What is empty may be so because of a mistake that is named already.
    assert_eq!(findings.errors.len(), 3, "{findings}");
}

#[test]
fn mailboxes_that_could_not_be_written_are_named_with_the_command_that_mends_it() {
    let mut site = Site::new();
    site.flags.domains.clear();
    let uid = rustix::process::geteuid().as_raw();
    let uid = if uid == 0 { 5000 } else { uid };
    site.toml = format!(
        "[routing]\nvirtual_mailbox_domains = \"d.example\"\n\
         virtual_mailbox_maps = \"hash:@DIR@/vmailbox\"\nvirtual_minimum_uid = 1\n\
         virtual_uid_maps = \"static:{uid}\"\nvirtual_gid_maps = \"static:{uid}\"\n"
    );
    fs::create_dir(site.path("base/open")).unwrap();
    fs::set_permissions(site.path("base/open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(
        site.path("vmailbox"),
        "a@d.example none/a\nb@d.example none/b\nc@d.example other/c/\n\
         @d.example open/d/\nout@d.example ../out/\n",
    )
    .unwrap();
    let findings = site.findings();
    let install = format!(
        "install -d -o {uid} -g {uid} {}",
        site.path("base/none").display()
    );
    let errors = findings.errors.join("\n");
    for expected in [
        install.as_str(),
        "mail for 2 recipients is deferred",
        "may be written by everyone",
        "<out@d.example>: virtual_mailbox_maps gives the path \"../out/\"",
    ] {
        assert!(errors.contains(expected), "{expected}: {findings}");
    }
    assert_eq!(findings.errors.len(), 3, "{findings}");
}

#[test]
fn a_delivery_log_that_keeps_serve_from_starting_is_found() {
    let site = Site::new();
    let directory = site.path("state/delivery-log");
    let (log, _) = LogWriter::open(&directory, LogWriterSettings::default()).unwrap();
    for below in 1..3 {
        let record = Record::Checkpoint(Checkpoint {
            below: Sequence(below),
            in_doubt: Vec::new(),
        });
        log.append_and_wait(record.encode()).unwrap();
    }
    log.close().unwrap();
    let findings = site.findings();
    assert_eq!(findings.to_string(), "everything is in order\n");
    let segment = directory.join("segment-0000000000000001.log");
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[0xff], 4096 + 40).unwrap();
    let error = site.only_error();
    assert!(error.contains(&segment.display().to_string()), "{error}");
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn mailboxes_that_are_there_and_take_no_mail_are_named_with_what_mends_them() {
    let mut site = Site::new();
    site.flags.domains.clear();
    let me = rustix::process::geteuid().as_raw();
    let uid = if me == 0 { 5000 } else { me };
    site.toml = format!(
        "[routing]\nvirtual_mailbox_domains = \"d.example\"\n\
         virtual_mailbox_maps = \"hash:@DIR@/vmailbox\"\nvirtual_minimum_uid = 1\n\
         virtual_uid_maps = \"static:{uid}\"\nvirtual_gid_maps = \"static:{uid}\"\n"
    );
    let base = site.path("base");
    let own = |path: &str| std::os::unix::fs::chown(base.join(path), Some(uid), Some(uid)).unwrap();
    fs::create_dir(base.join("d")).unwrap();
    fs::create_dir_all(base.join("d/directory")).unwrap();
    fs::write(base.join("d/file"), "").unwrap();
    fs::create_dir_all(base.join("d/closed/new")).unwrap();
    fs::create_dir(site.path("outside")).unwrap();
    std::os::unix::fs::symlink(site.path("outside"), base.join("d/link")).unwrap();
    fs::create_dir_all(base.join("d/good/new")).unwrap();
    fs::write(base.join("d/mbox"), "").unwrap();
    // Another's, when root makes it.
    fs::write(base.join("d/foreign"), "").unwrap();
    for path in ["d", "d/file", "d/closed", "d/good/new", "d/mbox"] {
        own(path);
    }
    fs::set_permissions(base.join("d/closed/new"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(
        site.path("vmailbox"),
        "a@d.example d/directory\nb@d.example d/file/\nc@d.example d/closed/\n\
         e@d.example d/link/\nf@d.example d/good/\ng@d.example d/mbox\n\
         h@d.example d/foreign\n",
    )
    .unwrap();
    let findings = site.findings();
    let errors = findings.errors.join("\n");
    let belongs = errors.contains("d/foreign belongs to user id 0");
    assert_eq!(belongs, me == 0, "{findings}");
    for expected in [
        "d/directory is a directory",
        "d/file is no directory",
        "d/closed/new of a Maildir cannot be written",
        "d/link leads out of virtual_mailbox_base",
    ] {
        assert!(errors.contains(expected), "{expected}: {findings}");
    }
    assert_eq!(
        findings.errors.len(),
        4 + usize::from(belongs),
        "{findings}"
    );
}

#[test]
fn a_rule_with_substitution_in_a_table_of_paths_or_owners_is_a_warning_with_table_and_line() {
    let mut site = Site::new();
    fs::write(site.path("paths"), "/^a@/ a/\n/^(.*)@d/ $1/\n").unwrap();
    site.flags.domains.clear();
    site.toml = "[routing]\nvirtual_mailbox_domains = \"d.example\"\n\
                 virtual_mailbox_maps = \"unionmap:{proxy:pcre:@DIR@/paths}\"\n\
                 virtual_uid_maps = \"pcre:{{/^u(.*)@/ $$1}, {/./ 5000}}\"\n\
                 virtual_gid_maps = \"static:5000\"\n"
        .to_owned();
    let findings = site.findings().to_string();
    for expected in [
        "/paths:2: substitution ($1) is not allowed in virtual_mailbox_maps",
        ":1: substitution ($1) is not allowed in virtual_uid_maps",
        "mailbox_path_substitution = \"component\"",
    ] {
        assert!(findings.contains(expected), "{expected}: {findings}");
    }
    site.toml += "[store]\nmailbox_path_substitution = \"component\"\n";
    let findings = site.findings().to_string();
    assert!(!findings.contains("virtual_mailbox_maps"), "{findings}");
}

#[test]
fn mailboxes_in_a_part_of_another_or_with_a_reserved_name_are_named() {
    let mut site = Site::new();
    let base = site.path("base");
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(base.join("d/there").join(part)).unwrap();
    }
    fs::create_dir_all(base.join("e")).unwrap();
    for directory in ["d", "d/there", "e"] {
        let everyone = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(base.join(directory), everyone).unwrap();
    }
    fs::write(base.join("e/mbox"), "").unwrap();
    site.toml = "[routing]\nvirtual_mailbox_maps = \"hash:@DIR@/vmailbox\"\n\
                 virtual_uid_maps = \"static:5000\"\nvirtual_gid_maps = \"static:5000\"\n"
        .to_owned();
    let mut table = String::new();
    for (user, path) in [
        ("new", "d/new/"),
        ("sent", "d/there/.Sent/"),
        ("lock", "e/john.lock/"),
        ("in-new", "d/there/new/"),
        ("locks", "e/mbox.lock/"),
        ("locking", "e/info.lock"),
        ("index", "d/there/dovecot.index.log"),
        ("later", "d/later/"),
        ("in-later", "d/later/cur/x/"),
    ] {
        table += &format!("{user}@d.example {path}\n");
    }
    fs::write(site.path("vmailbox"), table).unwrap();
    let findings = site.findings();
    let found = |list: &[String], text: &str| list.iter().any(|found| found.contains(text));
    for path in [
        "d/there/new",
        "e/mbox.lock",
        "\"e/info.lock\"",
        "\"d/there/dovecot.index.log\"",
    ] {
        assert!(found(&findings.errors, path), "{path}: {findings}");
    }
    assert!(found(&findings.warnings, "d/later/cur/x"), "{findings}");
    for path in ["d/new", ".Sent", "john.lock", "d/later:"] {
        assert!(!findings.to_string().contains(path), "{path}: {findings}");
    }
}

#[test]
fn an_owner_that_a_database_makes_of_the_address_is_an_error() {
    let mut site = Site::new();
    let cf = "dbpath = @DIR@/mail.db\nquery = SELECT 'x'\nresult_format = %U\n";
    let directory = site.directory.path().display().to_string();
    fs::write(site.path("ids.cf"), cf.replace("@DIR@", &directory)).unwrap();
    site.toml = "[routing]\nvirtual_uid_maps = \"sqlite:@DIR@/ids.cf\"\n\
                 virtual_gid_maps = \"static:5000\"\n"
        .to_owned();
    let findings = site.findings();
    let named = |error: &String| error.contains("virtual_uid_maps: table sqlite:");
    assert!(findings.errors.iter().any(named), "{findings}");
}
