//! How large a POSIX regular expression becomes when it is compiled, and so what a search costs.
//!
//! regcomp(3) of glibc copies what is repeated as often as it is repeated, goes down one call for
//! each parenthesis and for each thing that may be left out, and has no bounds but memory and the
//! stack: a line of a table could end the process. What is far beyond any pattern of sense is
//! refused first. The count is a rough one, on the high side. Source: regex(7), glibc's
//! posix/regcomp.c.

/// Weight of a pattern, as counted here. Ten thousand plain letters with a thousand alternatives
/// weigh a third of it.
const WEIGHT_MAX: u64 = 100_000;
/// What may be left out, repeated or chosen: the sets of places a match can be in grow with the
/// square of these.
const CHOICE_WEIGHT: u64 = 20;
/// How deep parentheses may nest (PCRE2 allows 250).
const DEPTH_MAX: usize = 1000;

/// The weight of a pattern. `extended` as of `REG_EXTENDED`.
///
/// # Errors
/// Why it is not to be compiled.
pub(in crate::table) fn weight(pattern: &[u8], extended: bool) -> Result<u64, &'static str> {
    let mut open: Vec<u64> = Vec::new();
    let (mut sum, mut last) = (0_u64, 0_u64);
    let mut rest = pattern;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let (byte, is_operator) = match (first, tail) {
            (b'\\', [escaped, tail @ ..]) => {
                rest = tail;
                (*escaped, !extended && *escaped != b'*')
            }
            (byte, _) => (*byte, extended || *byte == b'*'),
        };
        let repeated = match byte {
            b'[' if *first == b'[' => {
                rest = behind_bracket(rest);
                None
            }
            b'(' if is_operator => {
                open.push(sum);
                if open.len() > DEPTH_MAX {
                    return Err("parentheses are too deeply nested");
                }
                (sum, last) = (0, 0);
                continue;
            }
            b')' if is_operator && !open.is_empty() => {
                last = sum;
                sum = sum.saturating_add(open.pop().unwrap_or(0));
                continue;
            }
            b'|' if is_operator => {
                sum = sum.saturating_add(CHOICE_WEIGHT);
                last = 0;
                continue;
            }
            b'*' | b'?' if is_operator => Some((1, 1)),
            b'+' if is_operator => Some((2, 1)),
            b'{' if is_operator => {
                let (bounds, behind) = bounds(rest);
                rest = behind;
                Some(bounds)
            }
            _ => None,
        };
        let before = sum.saturating_sub(last);
        last = match repeated {
            None => {
                sum = sum.saturating_add(1);
                last = 1;
                continue;
            }
            Some((times, choices)) => last
                .saturating_mul(times)
                .saturating_add(CHOICE_WEIGHT.saturating_mul(choices)),
        };
        sum = before.saturating_add(last);
        if sum > WEIGHT_MAX {
            break;
        }
    }
    let all = open.iter().fold(sum, |all, one| all.saturating_add(*one));
    if all > WEIGHT_MAX {
        return Err("it repeats too much");
    }
    Ok(all)
}

/// True when the pattern may refer back to a group: such a search can take for ever, whatever
/// the pattern weighs. Some that do not are taken for one.
pub(in crate::table) fn refers_back(pattern: &[u8]) -> bool {
    pattern
        .windows(2)
        .any(|pair| matches!(pair, [b'\\', b'1'..=b'9']))
}

/// Of `{n}`, `{n,}` and `{n,m}`, opening brace passed: how many copies there will be, and how many
/// of them may be left out; and what follows.
fn bounds(text: &[u8]) -> ((u64, u64), &[u8]) {
    let (from, rest) = number(text);
    let (copies, choices, rest) = match rest {
        [b',', rest @ ..] => {
            let (to, rest) = number(rest);
            let least = from.unwrap_or(0);
            match to {
                Some(to) => (to.max(least), to.saturating_sub(least), rest),
                None => (least.saturating_add(1), 1, rest),
            }
        }
        rest => (from.unwrap_or(1), 0, rest),
    };
    let rest = match rest {
        [b'}', rest @ ..] | [b'\\', b'}', rest @ ..] => rest,
        rest => rest,
    };
    ((copies.max(1), choices), rest)
}

fn number(text: &[u8]) -> (Option<u64>, &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits).unwrap_or((&[], text));
    let value = digits.iter().fold(0_u64, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    ((!digits.is_empty()).then_some(value), rest)
}

/// What follows a bracket expression, `[` passed.
fn behind_bracket(text: &[u8]) -> &[u8] {
    let mut rest = text.strip_prefix(b"^").unwrap_or(text);
    rest = rest.strip_prefix(b"]").unwrap_or(rest);
    loop {
        match rest {
            [] => return rest,
            [b']', behind @ ..] => return behind,
            [b'[', mark @ (b':' | b'.' | b'='), inner @ ..] => {
                let end = inner.windows(2).position(|pair| pair == [*mark, b']']);
                rest = end.and_then(|at| inner.get(at + 2..)).unwrap_or_default();
            }
            [_, behind @ ..] => rest = behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pattern: &str) -> bool {
        weight(pattern.as_bytes(), true).is_err()
    }

    #[test]
    fn patterns_of_sense_are_compiled() {
        let domains = vec!["some-domain.example"; 2000].join("|");
        for pattern in [
            "",
            "^(.*)[+]x@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+example$",
            "^([a-z0-9-]{1,63}\\.){1,8}[a-z]{2,}$",
            "a{0,2000}",
            &"a".repeat(90_000),
            &"a?".repeat(1000),
            &format!("^({domains})$"),
            &format!("{}a{}", "(".repeat(200), ")".repeat(200)),
            &"\\(".repeat(5000),
            &"[(+{]".repeat(5000),
            "[]({9999}]",
            "[[:alpha:](((]",
            "a{",
            "a{,",
            "*",
            ")",
            "[",
        ] {
            assert!(!refused(pattern), "{pattern:.60}");
        }
        assert!(weight("(+|".repeat(9000).as_bytes(), false).is_ok());
    }

    #[test]
    fn patterns_that_take_all_memory_or_stack_are_refused() {
        for pattern in [
            "((a{1,30000}){1,30000}){1,30000}",
            "a{0,30000}",
            "a{99999999999999999999999999}",
            &"a?".repeat(20_000),
            &vec!["a"; 20_000].join("|"),
            &format!("{}a{}", "(".repeat(30), "+)".repeat(30)),
            &format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000)),
        ] {
            assert!(refused(pattern), "{pattern:.60}");
        }
        let basic = format!("{}a{}", "\\(".repeat(20_000), "\\)".repeat(20_000));
        assert!(weight(basic.as_bytes(), false).is_err());
        assert!(weight(b"\\(a\\{1,30000\\}\\)\\{1,30000\\}", false).is_err());
    }
}
