//! What must hold for any bytes from outside: checks for the fuzzer and the property tests.
//!
//! Built for tests and with `--cfg fuzzing` only. Each function panics when something that it read
//! contradicts itself, or differs from a simple model; that nothing panics or hangs on the way is
//! the other half of what is tested. Each room has its checks in a file of that name; those that
//! need several rooms are here. The inputs that are kept in `fuzz/corpus` run with the tests.

use crate::address::{Address, parse_address, parse_address_list, parse_mailbox, quote_address};
use crate::config::RoutingSettings;
use crate::route::{Router, table_context};
use crate::table::TableCache;

pub use crate::config::fuzz_checks::{check_mailstow_toml, check_main_cf, check_master_cf};
pub use crate::delivery::fuzz_checks::check_mbox_recovery;
pub use crate::log::fuzz_checks::{check_log_history, check_log_record, check_log_segments};
pub use crate::mailbox::fuzz_checks::check_mbox_quoting;
pub use crate::map::fuzz_checks::{check_map, check_map_changes};
pub use crate::message::fuzz_checks::check_message_content;
pub use crate::table::fuzz_checks::{check_compiled_table, check_pattern_table, check_text_table};

/// Reads `text` as an address in a command and resolves it.
///
/// # Panics
/// An address that was read is another one when it is written and read again.
pub fn check_address(text: &str) {
    let _ = parse_address(text);
    if let Ok(address) = parse_mailbox(text) {
        let external = address.external();
        let again = parse_mailbox(&external);
        assert_eq!(again.as_ref(), Ok(&address), "{text:?} as {external:?}");
        resolve(&address);
    }
    resolve(&Address::from_internal(text));
}

/// Reads `text` as an address list.
///
/// # Panics
/// An address that was read is another one when it is written and read again.
pub fn check_address_list(text: &str) {
    for listed in parse_address_list(text) {
        let external = listed.external();
        // What stands between < and > may be a list or a route itself; a literal with a bracket
        // in it cannot be written.
        if external.contains([',', ';', ':', '<', '>', '(', ')', '[']) {
            continue;
        }
        let again = parse_address_list(&external);
        let internals: Vec<String> = again.iter().map(|one| one.internal()).collect();
        if let [only] = internals.as_slice() {
            assert_eq!(only, &listed.internal(), "{text:?} as {external:?}");
        }
    }
}

fn resolve(address: &Address) {
    thread_local! {
        static ROUTER: Router = router();
    }
    ROUTER.with(|router| {
        let (resolution, trace) = router.explain(address);
        let is_answered = !resolution.results.is_empty() || resolution.error.is_some();
        assert!(is_answered, "{address}: neither a recipient nor an error");
        for route in &resolution.results {
            assert!(!route.transport.is_empty(), "{address}: {route:?}");
        }
        for step in trace.steps() {
            assert!(!step.to_string().is_empty());
        }
        let _ = quote_address(&address.internal());
    });
}

/// A little of everything.
#[allow(clippy::expect_used, reason = "the settings are those below")]
fn router() -> Router {
    let settings = RoutingSettings {
        myhostname: "mx.origin.example".into(),
        myorigin: "origin.example".into(),
        mydestination: "origin.example, localhost".into(),
        local_transport: "local:mx.origin.example".into(),
        recipient_delimiter: "+-".into(),
        local_recipient_maps: String::new(),
        virtual_alias_domains: "va.example".into(),
        virtual_alias_maps: "inline:{@va.example=@vm.example, a@vm.example=a, \
            {b@vm.example = c@va.example, b@vm.example}, {l@vm.example = l+x@vm.example}}"
            .into(),
        virtual_mailbox_domains: "vm.example".into(),
        virtual_mailbox_maps: "inline:{@vm.example=all/, d@vm.example=d}".into(),
        virtual_uid_maps: "static:5000".into(),
        virtual_gid_maps: "static:5000".into(),
        relay_domains: "relay.example".into(),
        transport_maps: "inline:{relay.example=smtp:[gate], .example=:}".into(),
        alias_maps: "inline:{{a = a, b, \"|cmd\"}, {b = a, /file}, {owner-a = b}}".into(),
        default_privs: "root".into(),
        propagate_unmatched_extensions: "canonical, virtual, alias".into(),
        resolve_numeric_domain: true,
        // The alias of l grows until this limit. With the default of 1000 bytes it takes so long
        // that few other inputs are tried.
        virtual_alias_address_length_limit: 200,
        ..RoutingSettings::default()
    };
    Router::open(&settings, &TableCache::new(table_context(&settings))).expect("sound settings")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Pieces with a meaning to some parser, and arbitrary ones.
    fn pieces() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "a",
            "b",
            "@",
            "@",
            ".",
            ",",
            ";",
            ":",
            "<",
            ">",
            "(",
            ")",
            "[",
            "]",
            "\"",
            "\\",
            "%",
            "!",
            "|",
            " ",
            "\t",
            "\n",
            "\r",
            "\0",
            "=",
            "$",
            "${",
            "{",
            "}",
            "#",
            "/",
            "?",
            "+x",
            "-",
            "vm.example",
            "va.example",
            "origin.example",
            "\"q q\"",
            "[1.2.3.4]",
            "[IPv6:::1]",
            "g:",
            "ü",
            "日",
            "\u{301}",
            ":include:",
            "a b\n",
            "$name",
            "if",
            "endif",
            "/x/",
            "1.2.3.4",
            "..",
        ];
        let piece = prop_oneof![
            8 => proptest::sample::select(PIECES).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    type Check = fn(&[u8]);

    /// Every check by the name of its fuzz target.
    const CHECKS: &[(&str, Check)] = &[
        ("address", |bytes| with_text(bytes, check_address)),
        ("address_list", |bytes| with_text(bytes, check_address_list)),
        ("compiled_table", check_compiled_table),
        ("log_history", check_log_history),
        ("log_record", check_log_record),
        ("log_segments", check_log_segments),
        ("mailstow_toml", check_mailstow_toml),
        ("main_cf", check_main_cf),
        ("map", check_map),
        ("map_changes", check_map_changes),
        ("master_cf", check_master_cf),
        ("mbox_quoting", check_mbox_quoting),
        ("mbox_recovery", check_mbox_recovery),
        ("message_content", check_message_content),
        ("pattern_table", check_pattern_table),
        ("text_table", check_text_table),
    ];

    fn with_text(bytes: &[u8], check: fn(&str)) {
        if let Ok(text) = str::from_utf8(bytes) {
            check(text);
        }
    }

    #[test]
    fn inputs_that_are_kept_pass_every_check() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (target, check) in CHECKS {
            let inputs = std::fs::read_dir(corpus.join(target)).expect(target);
            let mut count = 0;
            for input in inputs {
                let path = input.expect("an entry").path();
                println!("{}", path.display());
                check(&std::fs::read(&path).expect("an input"));
                count += 1;
            }
            assert!(count > 0, "no input is kept for {target}");
        }
    }

    proptest! {
        #[test]
        fn histories_of_a_log_keep_what_was_durable(bytes in vec(any::<u8>(), 0..400)) {
            check_log_history(&bytes);
        }

        #[test]
        fn records_before_damage_of_a_log_are_read(bytes in vec(any::<u8>(), 0..400)) {
            check_log_segments(&bytes);
        }

        #[test]
        fn recovery_of_an_mbox_changes_only_what_is_ours(bytes in vec(any::<u8>(), 0..400)) {
            check_mbox_recovery(&bytes);
        }

        #[test]
        fn changes_of_a_map_are_read_up_to_the_last_whole_frame(
            bytes in vec(any::<u8>(), 0..400),
        ) {
            check_map_changes(&bytes);
        }

        #[test]
        fn addresses_are_the_same_when_read_again(text in pieces()) {
            check_address(&text);
        }

        #[test]
        fn listed_addresses_are_the_same_when_read_again(text in pieces()) {
            check_address_list(&text);
        }

        #[test]
        fn keys_of_a_text_table_are_found_in_it(
            text in pieces(),
            odd in vec(any::<u8>(), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, odd);
            check_text_table(&bytes);
        }

        #[test]
        fn any_main_cf_is_read_or_refused(text in pieces(), odd in vec(any::<u8>(), 0..4)) {
            let mut bytes = text.into_bytes();
            bytes.extend(odd);
            check_main_cf(&bytes);
        }
    }
}
