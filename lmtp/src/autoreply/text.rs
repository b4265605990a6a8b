//! The text of an autoreply: a file below a directory.
//!
//! The table names the file by its nexthop, else the template of the configuration does, by the
//! address of the person. Invariant: a name is one component, or several where the operator wrote
//! the slash, and leads to a regular file strictly below the directory, by no symbolic link.

use super::person::Person;
use mailstow_engine::address::fold_case;
use mailstow_engine::octets;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest text, in bytes.
pub(super) const TEXT_BYTES_MAX: u64 = 256 * 1024;

/// Returns the name of the file of a person; `None` when no file may have it.
pub(super) fn name_of(template: &str, person: &Person) -> Option<String> {
    let folded = |text: &str| fold_case(text).into_owned();
    let domain = folded(person.address.domain.as_deref().unwrap_or_default());
    let user = folded(&person.address.local_part);
    let mut name = String::new();
    let mut rest = template.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '%' { rest.next() } else { None }) {
            ('%', Some('s')) => name.extend([component(&format!("{user}@{domain}"))?]),
            ('%', Some('u')) => name.extend([component(&user)?]),
            ('%', Some('d')) => name.extend([component(&domain)?]),
            ('%', Some('%')) => name.push('%'),
            ('%', _) => return None,
            (c, _) => name.push(c),
        }
    }
    is_name(&name).then_some(name)
}

/// Returns what is wrong with a template.
pub(super) fn template_problem(template: &str) -> Option<&'static str> {
    let mut rest = template.chars();
    while let Some(c) = rest.next() {
        if c == '%' && !matches!(rest.next(), Some('s' | 'u' | 'd' | '%')) {
            return Some("a % is followed by none of s, u, d and %");
        }
    }
    let plain = template
        .replace("%s", "s")
        .replace("%u", "u")
        .replace("%d", "d");
    if !is_name(&plain) {
        return Some("it is no relative path without . and ..");
    }
    (!template.contains("%s") && !template.contains("%u"))
        .then_some("it names the same file for all users of a domain; use %s, %u or a nexthop")
}

/// What an address makes of a component; `None` when it would make more of it, or hide the file.
fn component(text: &str) -> Option<String> {
    let is_one = !text.is_empty()
        && !text.starts_with('.')
        && !text.contains(|c: char| c == '/' || c.is_control());
    is_one.then(|| text.to_owned())
}

/// A relative path without `.` and `..`.
fn is_name(name: &str) -> bool {
    let is_component = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    name.len() < 1024 && name.split('/').all(is_component)
}

/// Reads the text with this name; `None` when there is no such file, or it is empty.
///
/// # Errors
/// It cannot be used; says why.
pub(super) fn read(directory: &Path, name: &str) -> Result<Option<String>, String> {
    let shown = || format!("{}/{name}", directory.display());
    if !is_name(name) {
        return Err(format!("{}: it is no file below the directory", shown()));
    }
    let file = match open_below(directory, name) {
        Ok(file) => File::from(file),
        // A name that no file can have is that of no text either: anyone may send to a long
        // address.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) if directory.is_dir() => {
            return Ok(None);
        }
        Err(Errno::LOOP | Errno::XDEV) => {
            return Err(format!(
                "{}: a symbolic link leads there; use a file",
                shown()
            ));
        }
        Err(error) => return Err(format!("{}: {}", shown(), io::Error::from(error))),
    };
    let failed = |error: io::Error| format!("{}: {error}", shown());
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{}: it is no regular file", shown()));
    }
    let mut bytes = Vec::new();
    let mut limited = file.take(TEXT_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(format!(
            "{}: it has more than {TEXT_BYTES_MAX} bytes",
            shown()
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{}: it is not UTF-8 at byte {at}; convert it", shown())
    })?;
    let text = text.trim_start_matches('\u{feff}');
    if text.contains('\0') {
        return Err(format!("{}: it has a NUL byte", shown()));
    }
    Ok((!text.trim().is_empty()).then(|| text.to_owned()))
}

fn open_below(directory: &Path, name: &str) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = open(directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    // A FIFO in the place of the file must not be waited for.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(
        &directory,
        octets::path(name).as_ref(),
        flags,
        Mode::empty(),
        how,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::Recipient;
    use mailstow_engine::address::{Address, ExtensionRule};
    use std::os::unix::fs::symlink;

    fn person(local_part: &str, domain: &str) -> Person {
        let rule = ExtensionRule {
            delimiters: String::new(),
            owner_request_special: true,
        };
        let recipient = Recipient {
            address: Address::new(local_part, Some(domain)),
            original: None,
        };
        Person::of(&recipient, &rule).unwrap()
    }

    #[test]
    fn a_name_is_made_of_the_address_and_leads_nowhere_else() {
        let info = person("Info", "Example.com");
        assert_eq!(name_of("%s", &info).unwrap(), "info@example.com");
        assert_eq!(name_of("%d/%u.txt", &info).unwrap(), "example.com/info.txt");
        for local_part in ["../x", "a/b", ".hidden", "a\nb", "..", "."] {
            for template in ["%s", "%d/%u"] {
                let name = name_of(template, &person(local_part, "example.com"));
                assert_eq!(name, None, "{local_part:?} {template}");
            }
        }
        assert_eq!(name_of("%d/%u", &person("a", "..")), None);
        for template in ["../%s", "/%s", "%x", "a//%u", "%"] {
            assert_eq!(name_of(template, &info), None, "{template}");
            assert!(template_problem(template).is_some(), "{template}");
        }
        assert_eq!(template_problem("%d/%u"), None);
        assert!(template_problem("%d").is_some());
    }

    #[test]
    fn a_text_is_a_utf8_file_below_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("texts");
        std::fs::create_dir_all(directory.join("d")).unwrap();
        let write = |name: &str, content: &[u8]| {
            std::fs::write(directory.join(name), content).unwrap();
        };
        write("a", "\u{feff}Grüße\n".as_bytes());
        write("empty", b" \n");
        write("latin", b"Gr\xfc\xdfe\n");
        write("nul", b"a\0b");
        write("d/b", b"x\n");
        std::fs::write(place.path().join("secret"), "s").unwrap();
        symlink("../secret", directory.join("out")).unwrap();
        symlink("a", directory.join("in")).unwrap();
        let long = vec![b'x'; usize::try_from(TEXT_BYTES_MAX).unwrap() + 1];
        write("long", &long);
        assert_eq!(read(&directory, "a").unwrap().as_deref(), Some("Grüße\n"));
        assert_eq!(read(&directory, "d/b").unwrap().as_deref(), Some("x\n"));
        for none in ["none", "empty", "none/a", "a/x"] {
            assert_eq!(read(&directory, none), Ok(None), "{none}");
        }
        for (bad, cause) in [
            ("latin", "not UTF-8 at byte 2"),
            ("nul", "NUL"),
            ("long", "more than"),
            ("d", "no regular file"),
            ("out", "symbolic link"),
            ("in", "symbolic link"),
            ("../secret", "no file below"),
            ("/etc/passwd", "no file below"),
        ] {
            let error = read(&directory, bad).unwrap_err();
            assert!(error.contains(cause), "{error}");
        }
        let error = read(&place.path().join("gone"), "a").unwrap_err();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_fifo_in_the_place_of_a_text_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(place.path(), "a").unwrap_err();
        assert!(error.contains("no regular file"), "{error}");
    }
}
