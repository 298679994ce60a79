//! Domains, which may be spelled in two ways: `bücher.example` (with U-labels) and
//! `xn--bcher-kva.example` (A-labels, RFC 5890). Both are one domain, and so is either of them with
//! a final dot: the dot is DNS's mark of a full name, and mail has full names only (RFC 5321,
//! 2.3.5). An address literal is one domain in each of its spellings.
//!
//! DNS, TLS, and servers without SMTPUTF8 know the second only. [`check`] is for what comes in;
//! everything else takes any text, because a spool may hold addresses that an earlier version
//! accepted.

use core::net::{IpAddr, Ipv6Addr};
use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The name has no ASCII form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid internationalised domain name (RFC 5891)")]
pub struct NotADomain(String);

/// All that no host name has, but for the underscore, which some have.
const FORBIDDEN: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// The domain has letters that are in no domain, an empty label, or a label or a whole that is
/// too long for DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDomain;

/// The longest label of a name in DNS, in octets (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The longest name in DNS, in octets, without a final dot.
const MAX_NAME: usize = 253;

/// Whether mail can be addressed to a domain: a name that DNS can be asked for, or an address
/// literal. Hyphens and underscores may stand anywhere in a name, because some names in use have
/// them so, and DNS has the last word. A final dot is not part of the domain.
///
/// # Errors
/// It cannot. No later attempt could succeed.
pub fn check(domain: &str) -> Result<(), BadDomain> {
    if domain.starts_with('[') {
        return literal(domain).map(|_| ()).ok_or(BadDomain);
    }
    let ascii = to_ascii(domain).map_err(|_| BadDomain)?;
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if ascii.len() <= MAX_NAME && ascii.split('.').all(is_label) {
        Ok(())
    } else {
        Err(BadDomain)
    }
}

/// The address in an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321,
/// 4.1.3), the only kinds that there are.
pub fn literal(domain: &str) -> Option<IpAddr> {
    let text = domain.strip_prefix('[')?.strip_suffix(']')?;
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            text[5..].parse::<Ipv6Addr>().ok().map(IpAddr::from)
        }
        _ => text.parse().ok(),
    }
}

/// The domain without the dot at its end. Two dots are no domain's end, and stay: what comes out has
/// nothing more to take off.
pub fn without_final_dot(domain: &str) -> &str {
    match domain.strip_suffix('.') {
        Some(name) if !name.is_empty() && !name.ends_with('.') => name,
        _ => domain,
    }
}

/// A domain as DNS and TLS know it: A-labels in lower case, without a final dot. An address
/// literal stays one.
///
/// Characters are mapped as browsers do (UTS 46, not transitional), so that `BÜCHER。example` is
/// found too. Whether a label may be registered is not asked.
///
/// # Errors
/// Characters that are in no domain, directions or joiners out of their place, a label of more
/// than 63 octets, a name of more than 253.
pub fn to_ascii(domain: &str) -> Result<Cow<'_, str>, NotADomain> {
    if domain.is_ascii() {
        let domain = without_final_dot(domain);
        return Ok(if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
            domain.to_ascii_lowercase().into()
        } else {
            domain.into()
        });
    }
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            FORBIDDEN,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .map_err(|_| NotADomain(domain.to_owned()))?;
    // The dot may have been one of those that other scripts have.
    Ok(match ascii.strip_suffix('.') {
        Some(name) => name.to_owned().into(),
        None => ascii,
    })
}

/// The one spelling by which a domain is compared: its ASCII form, or where it has none, the
/// domain in lower case. An address is spelled as Rust does it.
pub fn key(domain: &str) -> Cow<'_, str> {
    match literal(domain) {
        Some(IpAddr::V4(address)) => return format!("[{address}]").into(),
        Some(IpAddr::V6(address)) => return format!("[ipv6:{address}]").into(),
        None => {}
    }
    to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase().into())
}

/// Whether both are one domain.
pub fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || key(one) == key(other)
}

/// Whether a domain is a subdomain of another, at any depth.
pub fn is_below(domain: &str, above: &str) -> bool {
    let (domain, above) = (key(domain), key(above));
    let labels = domain.strip_suffix(&*above);
    labels.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_one_ascii_form() {
        for (domain, ascii) in [
            ("Example.ORG", "example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            ("bu\u{308}cher。example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("bücher.example.", "xn--bcher-kva.example"),
            ("bücher.example。", "xn--bcher-kva.example"),
            ("Example.ORG.", "example.org"),
            // Not one that is left when the dot is gone.
            (".", "."),
            ("_x.bücher.example", "_x.xn--bcher-kva.example"),
            // Not transitional: what DNS has of its own is looked up.
            ("straße.example", "xn--strae-oqa.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            // What is ASCII is not judged.
            ("a..b", "a..b"),
            ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
            ("xn--", "xn--"),
        ] {
            assert_eq!(to_ascii(domain).as_deref(), Ok(ascii), "{domain}");
            assert!(is_same(domain, ascii), "{domain}");
        }
        assert!(!is_same("bücher.example", "bucher.example"));
        assert!(!is_same("example.org..", "example.org"));
        assert!(is_same("[IPv6:2001:DB8:0::1]", "[ipv6:2001:db8::1]"));
        assert!(!is_same("[192.0.2.1]", "[192.0.2.2]"));
    }

    #[test]
    fn mail_can_be_addressed_to_what_dns_can_be_asked_for() {
        let label = "x".repeat(MAX_LABEL);
        let longest = format!("{label}.{label}.{label}.{}", "x".repeat(61));
        for good in [
            "example.org",
            "example.org.",
            "localhost",
            "_x.example",
            "-x-.example",
            "1.2.3.4",
            "bücher.example",
            "[192.0.2.1]",
            "[IPv6:::1]",
            "[ipv6:2001:db8::1]",
            &label,
            &longest,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a!b",
            "a@b",
            "a(b)",
            "a\"b",
            "ü..example",
            "bü cher.example",
            "[",
            "[]",
            "[192.0.2]",
            "[192.0.2.1",
            "[IPv6:]",
            "[IPv6:192.0.2.1]",
            "[x:y]",
            "[192.0.2.1].",
            &format!("{label}x"),
            &format!("{longest}x"),
        ] {
            assert_eq!(check(bad), Err(BadDomain), "{bad}");
        }
    }

    /// `x..` lost one dot when it was stored and another when it was read back.
    #[test]
    fn one_dot_is_taken_off_the_end_and_no_two() {
        for (domain, without) in [
            ("b.example.", "b.example"),
            ("b.example", "b.example"),
            ("x..", "x.."),
            (".", "."),
            ("..", ".."),
            ("", ""),
        ] {
            assert_eq!(without_final_dot(domain), without);
            assert_eq!(key(&key(domain)), key(domain), "{domain}");
        }
    }

    #[test]
    fn what_has_no_ascii_form_is_no_domain() {
        let long = format!("{}.example", "ü".repeat(64));
        for domain in [
            "bü cher.example",
            "bü@cher.example",
            "ü..example",
            "-ü.example",
            "\u{301}ü.example",
            "a\u{200d}b.example",
            "xn--a.ü.example",
            "\u{fffd}.example",
            &*long,
        ] {
            assert!(to_ascii(domain).is_err(), "{domain}");
            assert!(is_same(domain, &domain.to_uppercase()), "{domain}");
        }
        let error = to_ascii("ü..example").unwrap_err().to_string();
        assert_eq!(
            error,
            "ü..example is not a valid internationalised domain name (RFC 5891)"
        );
    }
}
