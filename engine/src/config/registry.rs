//! All parameters in one list.
//!
//! Reading, validation, `mailstow config --defaults` and the hints for unknown keys all work from
//! [`PARAMETERS`].

use super::autoreply_parameters::AUTOREPLY;
use super::local_parameters::LOCAL;
use super::log_parameters::DELIVERY_LOG;
use super::parameter::Parameter;
use super::parameters::GENERAL;
use super::recipient_parameters::RECIPIENTS;
use super::relay_parameters::RELAY;
use super::store_parameters::STORE;
use super::transport_parameters::TRANSPORT;
use crate::sync::LazyLock;

/// All parameters, in the order in which they are printed.
pub static PARAMETERS: LazyLock<Vec<Parameter>> = LazyLock::new(|| {
    let mut all = GENERAL.to_vec();
    let routing = all.iter().rposition(|p| p.section == "routing");
    let end = routing.map_or(0, |last| last + 1);
    all.splice(end..end, RECIPIENTS.iter().chain(LOCAL).cloned());
    let limits = all.iter().position(|p| p.section == "limits");
    let end = limits.unwrap_or(all.len());
    all.splice(
        end..end,
        STORE
            .iter()
            .chain(DELIVERY_LOG)
            .chain(TRANSPORT)
            .chain(RELAY)
            .chain(AUTOREPLY)
            .cloned(),
    );
    all
});

/// The parameter of that section and name.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Parameter> {
    PARAMETERS
        .iter()
        .find(|p| p.section == section && p.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::known::postfix_defaults;
    use super::super::parameter::Fallback;
    use super::super::settings::Settings;
    use super::*;

    #[test]
    fn routing_parameters_have_the_defaults_of_postfix() {
        let defaults = postfix_defaults();
        for parameter in PARAMETERS.iter().filter(|p| p.section == "routing") {
            let postfix = defaults.get(parameter.name).map(String::as_str);
            match parameter.fallback {
                Fallback::Text(text) => assert_eq!(postfix, Some(text), "{}", parameter.name),
                Fallback::Computed(_) => assert_eq!(postfix, Some(""), "{}", parameter.name),
            }
        }
    }

    #[test]
    fn every_default_is_valid_and_equals_the_default_of_its_settings_field() {
        let mut settings = Settings::default();
        for parameter in PARAMETERS.iter().filter(|p| p.section != "routing") {
            if let Fallback::Text(text) = parameter.fallback
                && !text.contains('$')
            {
                let applied = parameter.kind.apply(text, true, &mut settings);
                assert_eq!(applied, Ok(()), "{}", parameter.name);
            }
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn no_name_stands_twice_and_every_one_has_a_meaning_and_a_unit() {
        for (index, parameter) in PARAMETERS.iter().enumerate() {
            assert!(!parameter.meaning.is_empty() && !parameter.unit().is_empty());
            assert!(!parameter.meaning.ends_with('.'), "{}", parameter.meaning);
            let twin = PARAMETERS
                .iter()
                .skip(index + 1)
                .find(|other| (other.section, other.name) == (parameter.section, parameter.name));
            assert!(twin.is_none(), "{}", parameter.name);
        }
    }
}
