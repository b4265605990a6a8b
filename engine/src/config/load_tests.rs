//! Tests of merging: precedence, origins, flags, warnings, and errors reported together.

use super::*;
use crate::config::MboxLock;
use std::fs;
use std::time::Duration;

/// A directory with `postfix/main.cf` and `mailstow.toml`, as far as they are given.
struct Files {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Files {
    fn new(main_cf: Option<&str>, toml: Option<&str>) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut sources = Sources::default();
        if let Some(text) = main_cf {
            let postfix = directory.path().join("postfix");
            fs::create_dir(&postfix).expect("mkdir");
            fs::write(postfix.join("main.cf"), text).expect("main.cf");
            sources.postfix = Some(postfix);
        }
        if let Some(text) = toml {
            let config = directory.path().join("mailstow.toml");
            fs::write(&config, text).expect("mailstow.toml");
            sources.config = Some(config);
        }
        Self { directory, sources }
    }

    fn load(&self) -> Configuration {
        load_in(&self.sources, &user()).expect("valid configuration")
    }

    fn errors(&self) -> Vec<String> {
        let error = load_in(&self.sources, &user()).expect_err("invalid configuration");
        self.short(error.problems.iter().map(ToString::to_string))
    }

    /// Messages without the name of the temporary directory.
    fn short(&self, messages: impl Iterator<Item = String>) -> Vec<String> {
        let prefix = format!("{}/", self.directory.path().display());
        messages
            .map(|message| message.replace(&prefix, ""))
            .collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.short(self.load().warnings.into_iter())
    }

    fn origin(&self, section: &str, name: &str) -> String {
        let origin = self
            .load()
            .entry(section, name)
            .expect(name)
            .origin
            .to_string();
        self.short(std::iter::once(origin)).remove(0)
    }
}

fn user() -> Environment {
    Environment {
        euid: 1000,
        egid: 1001,
        hostname: "vm".to_owned(),
        xdg_state_home: None,
        home: Some(PathBuf::from("/home/u")),
        default_config: PathBuf::from("/nonexistent/mailstow.toml"),
        mail_user: None,
        has_user: |name| name == "postfix",
    }
}

fn root() -> Environment {
    Environment {
        euid: 0,
        egid: 0,
        mail_user: Some(("nobody".to_owned(), 65534, 65534)),
        ..user()
    }
}

fn domain_flags() -> Sources {
    Sources {
        flags: Flags {
            domains: vec!["example.com".into(), "example.net".into()],
            base: Some(PathBuf::from("./vhosts")),
            ..Flags::default()
        },
        ..Sources::default()
    }
}

const VIRTUAL_README: &str = "\
virtual_mailbox_domains = example.com, ...more domains...
virtual_mailbox_base = /var/mail/vhosts
virtual_mailbox_maps = hash:/etc/postfix/vmailbox
virtual_minimum_uid = 100
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_alias_maps = hash:/etc/postfix/virtual
";

#[test]
fn the_example_of_postfixs_virtual_readme_is_read_verbatim() {
    let files = Files::new(Some(VIRTUAL_README), None);
    let configuration = files.load();
    let routing = &configuration.settings.routing;
    assert_eq!(
        routing.virtual_mailbox_domains,
        "example.com, ...more domains..."
    );
    assert_eq!(routing.virtual_mailbox_base, Path::new("/var/mail/vhosts"));
    assert_eq!(routing.virtual_uid_maps, "static:5000");
    assert_eq!(
        routing.mydestination,
        "vm.localdomain, localhost.localdomain, localhost"
    );
    assert_eq!(
        files.origin("routing", "virtual_gid_maps"),
        "postfix/main.cf:6"
    );
    let warnings = files.warnings();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(routing.virtual_alias_maps, "hash:/etc/postfix/virtual");
    assert!(!configuration.settings.lmtp.expand_aliases);
}

#[test]
fn later_sources_win_and_references_see_the_winner() {
    let main_cf = "myhostname = a.example\nvirtual_mailbox_base = /b/$myhostname\n\
                   virtual_mailbox_maps = static:x\nstale_lock_time = 2m\n\
                   virtual_mailbox_domains = x.example\n";
    let toml = "[routing]\nmyhostname = \"t.example\"\nvirtual_mailbox_lock = [\"flock\"]\n\
                virtual_mailbox_limit = \"60M\"\n[store]\nhost = \"$mydomain\"\n";
    let mut files = Files::new(Some(main_cf), Some(toml));
    let settings = files.load().settings;
    assert_eq!(
        settings.routing.virtual_mailbox_base,
        Path::new("/b/t.example")
    );
    assert_eq!(settings.routing.stale_lock_time, Duration::from_secs(120));
    assert_eq!(settings.routing.virtual_mailbox_lock, [MboxLock::Flock]);
    assert_eq!(settings.routing.virtual_mailbox_limit, 60 << 20);
    assert_eq!(settings.store.host, "example");
    assert_eq!(settings.lmtp.hostname, "t.example");
    assert_eq!(files.origin("routing", "myhostname"), "mailstow.toml:2");
    assert_eq!(
        files.origin("routing", "virtual_mailbox_base"),
        "postfix/main.cf:2"
    );
    assert_eq!(files.origin("routing", "relayhost"), "default");
    files.sources.flags.base = Some(PathBuf::from("/flag/$x"));
    let configuration = files.load();
    assert_eq!(
        configuration.settings.routing.virtual_mailbox_base,
        Path::new("/flag/$x")
    );
    assert_eq!(
        files.origin("routing", "virtual_mailbox_base"),
        "flag --base"
    );
    assert_eq!(configuration.files.len(), 2);
}

#[test]
fn postfixs_directory_may_be_named_in_mailstow_toml() {
    let mut files = Files::new(Some(VIRTUAL_README), None);
    let postfix = files.sources.postfix.take().expect("postfix");
    let toml = format!("[postfix]\nconfig_directory = {:?}\n", postfix);
    let config = files.directory.path().join("m.toml");
    fs::write(&config, toml).expect("m.toml");
    files.sources.config = Some(config.clone());
    assert_eq!(
        files.origin("routing", "virtual_uid_maps"),
        "postfix/main.cf:5"
    );
    assert_eq!(files.origin("postfix", "config_directory"), "m.toml:2");
    fs::write(&config, "[postfix]\nconfig_directory = \"postfix\"\n").expect("m.toml");
    assert!(
        files.errors()[0].contains("m.toml:2: config_directory = postfix: the path is relative")
    );
}

#[test]
fn one_domain_and_a_base_are_a_whole_configuration() {
    let configuration = load_in(&domain_flags(), &user()).expect("valid");
    let routing = &configuration.settings.routing;
    assert_eq!(routing.virtual_mailbox_domains, "example.com, example.net");
    assert_eq!(
        routing.virtual_mailbox_maps,
        "inline:{@example.com=any, @example.net=any}"
    );
    assert_eq!(routing.mailbox_path, "%d/%u/");
    assert!(routing.virtual_mailbox_base.is_absolute());
    assert!(routing.virtual_mailbox_base.ends_with("vhosts"));
    assert_eq!(routing.virtual_uid_maps, "static:1000");
    assert_eq!(routing.virtual_gid_maps, "static:1001");
    assert_eq!(routing.virtual_minimum_uid, 100);
    assert_eq!(routing.mydestination, "");
    assert_eq!(
        configuration.settings.state_directory,
        Path::new("/home/u/.local/state/mailstow")
    );
    assert!(
        configuration.warnings.is_empty(),
        "{:?}",
        configuration.warnings
    );
    let error = configuration
        .listen()
        .expect_err("no default for users")
        .to_string();
    assert!(error.contains("--listen"), "{error}");
}

#[test]
fn a_user_with_a_low_id_may_own_mail_and_roots_mail_belongs_to_another() {
    let low = Environment {
        euid: 33,
        egid: 33,
        ..user()
    };
    let settings = load_in(&domain_flags(), &low).expect("valid").settings;
    assert_eq!(settings.routing.virtual_minimum_uid, 33);
    let configuration = load_in(&domain_flags(), &root()).expect("valid");
    assert_eq!(
        configuration.settings.routing.virtual_uid_maps,
        "static:65534"
    );
    let origin = &configuration
        .entry("routing", "virtual_uid_maps")
        .expect("entry")
        .origin;
    let expected = "flag --domain (started as root: mail is owned by nobody)";
    assert_eq!(origin.to_string(), expected);
    let listen = configuration.listen().expect("root has a default");
    assert_eq!(listen, [ListenAddress::Unix("/run/mailstow/lmtp".into())]);
    assert_eq!(
        configuration.settings.state_directory,
        Path::new("/var/lib/mailstow")
    );
}

#[test]
fn domains_on_the_command_line_need_a_base_and_must_be_domains() {
    let mut sources = domain_flags();
    sources.flags.base = None;
    sources.flags.domains = vec!["a@b".into(), "".into(), "x..y".into(), "ok.example".into()];
    sources.flags.listen = vec!["a, b".into()];
    let error = load_to_deliver_in(&sources, &user()).expect_err("invalid");
    let text = error.to_string();
    assert!(
        text.contains("flag --domain: \"a@b\" is no domain name"),
        "{text}"
    );
    assert!(
        text.contains("flag --domain: mail needs a directory; add --base DIR"),
        "{text}"
    );
    assert!(
        text.contains("flag --listen: \"a, b\" holds a blank"),
        "{text}"
    );
    assert_eq!(
        error
            .problems
            .iter()
            .filter(|p| p.text.contains("no domain"))
            .count(),
        3
    );
}

#[test]
fn the_owner_is_not_guessed_when_files_say_where_mail_goes() {
    let mut files = Files::new(Some(VIRTUAL_README), None);
    files.sources.flags.domains = vec!["flag.example".into()];
    let routing = files.load().settings.routing;
    assert_eq!(routing.virtual_mailbox_maps, "hash:/etc/postfix/vmailbox");
    assert_eq!(routing.virtual_mailbox_domains, "flag.example");
    let toml = "[routing]\nvirtual_mailbox_maps = \"static:x/\"\nvirtual_mailbox_base = \"/b\"\n";
    let mut files = Files::new(None, Some(toml));
    files.sources.flags.domains = vec!["flag.example".into()];
    assert_eq!(files.load().settings.routing.virtual_uid_maps, "");
}

#[test]
fn no_source_at_all_reads_the_default_file_or_says_what_to_give() {
    let error = load_in(&Sources::default(), &user())
        .expect_err("nothing")
        .to_string();
    for flag in [
        "--domain",
        "--postfix",
        "--config",
        "/nonexistent/mailstow.toml",
    ] {
        assert!(error.contains(flag), "{error}");
    }
    let files = Files::new(
        None,
        Some("[routing]\nvirtual_mailbox_domains = \"d.example\"\n"),
    );
    let default_config = files.sources.config.clone().expect("config");
    let environment = Environment {
        default_config,
        ..user()
    };
    let settings = load_in(&Sources::default(), &environment)
        .expect("valid")
        .settings;
    assert_eq!(settings.routing.virtual_mailbox_domains, "d.example");
}

#[test]
fn a_user_without_a_home_is_asked_for_a_state_directory_only_when_one_is_needed() {
    let environment = Environment {
        home: None,
        ..user()
    };
    let configuration = load_in(&domain_flags(), &environment).expect("valid");
    let error = configuration
        .state_directory()
        .expect_err("no home")
        .to_string();
    assert!(error.contains("--state-directory"), "{error}");
    let environment = Environment {
        xdg_state_home: Some("/x".into()),
        ..user()
    };
    let configuration = load_in(&domain_flags(), &environment).expect("valid");
    assert_eq!(
        configuration.state_directory(),
        Ok(Path::new("/x/mailstow"))
    );
}

#[test]
fn all_mistakes_of_all_files_are_reported_at_once() {
    let main_cf = "virtual_minimum_uid = abc\nbroken line\nvirtual_mailbox_limit = 50M\n\
                   virtual_mailbox_lock = fcntl, lockf\nstrict_mailbox_ownership = maybe\n\
                   virtual_mailbox_base = vhosts\nmyorigin = ${myhostname\n";
    let toml = "[lmtp]\nidle_timeout = \"soon\"\nlisten = \"tcp:24\"\nnul = \"eat\"\n\
                [limits]\nrecipients = 5\nconection = 1\n";
    let errors = Files::new(Some(main_cf), Some(toml)).errors();
    for expected in [
        "postfix/main.cf:1: virtual_minimum_uid = abc: this is no whole number",
        "postfix/main.cf:2: missing '=' after attribute name",
        "postfix/main.cf:3: virtual_mailbox_limit = 50M: this is no size",
        "postfix/main.cf:4: virtual_mailbox_lock = fcntl, lockf: unknown lock",
        "postfix/main.cf:5: strict_mailbox_ownership = maybe: use yes or no",
        "postfix/main.cf:6: virtual_mailbox_base = vhosts: the path is relative",
        "postfix/main.cf:7: myorigin: \"${myhostname\" is not closed",
        "mailstow.toml:2: idle_timeout = soon: this is no time",
        "mailstow.toml:3: listen = tcp:24: listen address \"tcp:24\"",
        "mailstow.toml:4: nul = eat: use one of accept, reject",
        "mailstow.toml:6: recipients = 5: use a value from 100",
        "mailstow.toml:7: unknown key conection in [limits]; the nearest known key is connections",
    ] {
        assert!(
            errors.iter().any(|error| error.starts_with(expected)),
            "{expected}: {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 12, "{errors:#?}");
}

#[test]
fn missing_files_are_named_with_the_flag_that_names_them() {
    let mut files = Files::new(None, None);
    files.sources.postfix = Some(files.directory.path().join("nowhere"));
    files.sources.config = Some(files.directory.path().join("none.toml"));
    let errors = files.errors();
    assert!(
        errors[0].contains("there is no file none.toml; --config"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("flag --postfix: there is no file nowhere/main.cf"),
        "{errors:?}"
    );
    files.sources.config = Some(files.directory.path().to_owned());
    assert!(files.errors()[0].contains("is a directory; name a file"));
    let main_cf = files.directory.path().join("main.cf");
    fs::write(&main_cf, "").expect("main.cf");
    files.sources.postfix = Some(main_cf);
    assert!(files.errors()[1].contains("must be a directory"));
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    for (main_cf, expected) in [
        (
            "virtual_mailbox_limit = 1000\n",
            "main.cf:1: virtual_mailbox_limit = 1000 is smaller",
        ),
        (
            "message_size_limit = 0\n",
            "main.cf:1: virtual_mailbox_limit = 51200000 is smaller",
        ),
        (
            "recipient_delimiter = +@\n",
            "main.cf:1: recipient_delimiter = +@: '@' cannot",
        ),
    ] {
        let errors = Files::new(Some(main_cf), None).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    }
    let unlimited = "virtual_mailbox_limit = 0\nmessage_size_limit = 0\n";
    Files::new(Some(unlimited), None).load();
}

#[test]
fn a_circle_of_references_names_the_parameters_and_the_line() {
    let main_cf = "a = $b\nb = $a\nmyorigin = $a\nrelayhost = $relayhost\n\
                   myhostname = x.$mydomain\n";
    let errors = Files::new(Some(main_cf), None).errors();
    assert_eq!(errors.len(), 3, "{errors:?}");
    let at = "postfix/main.cf:5: myhostname: ";
    assert!(errors.iter().any(|e| e.starts_with(at)), "{errors:?}");
    assert!(
        errors
            .iter()
            .any(|e| e.contains(":3: myorigin") && e.contains("a -> b -> a"))
    );
    assert!(
        errors
            .iter()
            .any(|e| e.contains("main.cf:4") && e.contains("relayhost -> relayhost"))
    );
}

#[test]
fn what_main_cf_says_and_mailstow_does_not_do_is_reported() {
    let main_cf = "canonical_maps = hash:/t\nluser_relay =\nvirtual_mailbox_map = hash:/v\n\
                   smtpd_banner = hi\nmy_base = /x\nmailq_path = /q\n\
                   virtual_mailbox_base = $my_base/$vmail_dir\nvirtual_mailbox_domains = a.b\n";
    let files = Files::new(Some(main_cf), None);
    let warnings = files.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert!(warnings[0].contains("main.cf:7: virtual_mailbox_base refers to $vmail_dir"));
    assert!(warnings[1].starts_with("canonical_maps (postfix/main.cf:1): addresses are"));
    assert!(warnings[2].starts_with("virtual_mailbox_map (postfix/main.cf:3): "));
    assert!(warnings[2].ends_with("did you mean virtual_mailbox_maps?"));
    let others = ["smtpd_banner", "my_base", "mailq_path"];
    assert_eq!(files.load().other_parameters, others.map(str::to_owned));
}

#[test]
fn a_comment_behind_a_value_is_reported_because_postfix_takes_it_for_a_part_of_it() {
    let main_cf = "virtual_mailbox_domains = a.b  # ours\nvirtual_mailbox_base = /srv/mail#1\n\
                   # a separate line\nsmtpd_banner = hi # there\n";
    let warnings = Files::new(Some(main_cf), None).warnings();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    let named = "virtual_mailbox_domains (postfix/main.cf:1): no comment begins inside a value";
    assert!(warnings[0].starts_with(named), "{warnings:#?}");
    assert!(warnings[0].contains("\"# ours\""), "{warnings:#?}");
}

#[test]
fn what_is_not_done_and_not_asked_for_either_is_not_reported() {
    let asks = |line: &str| {
        let main_cf = format!("compatibility_level = 3.6\nvirtual_mailbox_domains = a.b\n{line}\n");
        Files::new(Some(&main_cf), None).warnings().len()
    };
    assert_eq!(asks("smtputf8_enable = no"), 0);
    assert_eq!(asks("unknown_local_recipient_reject_code = 450"), 1);
    assert_eq!(asks("unknown_local_recipient_reject_code = 550"), 0);
    assert_eq!(asks("command_execution_directory = /srv"), 1);
    assert_eq!(asks("command_execution_directory ="), 0);
    assert_eq!(asks("forward_path = $home/.mail-forward"), 0);
}

#[test]
fn master_cf_is_read_for_mistakes_and_overrides() {
    let files = Files::new(Some("virtual_mailbox_domains = a.b\n"), None);
    let postfix = files.sources.postfix.clone().expect("postfix");
    let master_cf = "virtual unix - n n - - virtual\n  -o virtual_mailbox_base=/x\nbad inet n\n";
    fs::write(postfix.join("master.cf"), master_cf).expect("master.cf");
    let warnings = files.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("master.cf:3: a service has eight fields"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("master.cf:1: service virtual sets virtual_mailbox_base"));
}

#[test]
fn the_effective_settings_written_as_toml_load_to_the_same_settings() {
    let files = Files::new(Some(VIRTUAL_README), None);
    let before = files.load();
    let mut text = String::new();
    let mut section = "";
    for entry in before
        .entries
        .iter()
        .filter(|entry| entry.section != "postfix")
    {
        if entry.section != section {
            section = entry.section;
            text.push_str(&format!("[{section}]\n"));
        }
        if !(entry.name == "listen" && entry.value.is_empty()) {
            text.push_str(&format!("{} = {}\n", entry.name, entry.toml));
        }
    }
    let after = Files::new(None, Some(&text)).load();
    // Where main.cf is, is said by the section that is left out.
    let mut expected = before.settings;
    expected.postfix_directory = PathBuf::new();
    assert_eq!(expected, after.settings);
}

#[test]
fn settings_loaded_from_nothing_but_a_domain_are_postfixs_defaults() {
    let sources = Sources {
        flags: Flags {
            domains: vec!["d.example".into()],
            base: Some("/b".into()),
            ..Flags::default()
        },
        ..Sources::default()
    };
    let loaded = load_in(&sources, &user()).expect("valid").settings;
    let defaults = Settings::default();
    assert_eq!(loaded.limits, defaults.limits);
    assert_eq!(loaded.log, defaults.log);
    assert_eq!(
        loaded.routing.virtual_mailbox_lock,
        defaults.routing.virtual_mailbox_lock
    );
    assert_eq!(
        loaded.routing.deliver_lock_attempts,
        defaults.routing.deliver_lock_attempts
    );
}

#[test]
fn a_configuration_without_a_base_is_good_enough_to_look_recipients_up() {
    let main_cf = "virtual_mailbox_domains = example.com\n\
                   virtual_mailbox_maps = hash:/etc/postfix/vmailbox\n";
    let files = Files::new(Some(main_cf), None);
    let routing = files.load().settings.routing;
    assert_eq!(routing.virtual_mailbox_base, Path::new(""));
    let error = load_to_deliver_in(&files.sources, &user()).expect_err("nowhere to deliver");
    let text = error.to_string();
    assert!(
        text.contains("main.cf:2: virtual_mailbox_maps is set but"),
        "{text}"
    );
    assert!(
        text.contains("set it to the directory that holds"),
        "{text}"
    );

    let mut sources = domain_flags();
    sources.flags.base = None;
    assert!(load_in(&sources, &user()).is_ok());
    let error = load_to_deliver_in(&sources, &user()).expect_err("nowhere to deliver");
    let expected = "flag --domain: mail needs a directory; add --base DIR";
    assert_eq!(error.to_string(), expected);
}
