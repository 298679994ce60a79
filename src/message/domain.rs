//! Domains, which may be spelled in two ways: `bücher.example` (with U-labels) and
//! `xn--bcher-kva.example` (A-labels, RFC 5890). Both are one domain.
//!
//! DNS, TLS, and servers without SMTPUTF8 know the second only. What is ASCII already is not
//! judged: senders use underscores and worse, and DNS has the last word.

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The name has no ASCII form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid internationalised domain name (RFC 5891)")]
pub struct NotADomain(String);

/// All that no host name has, but for the underscore, which some have.
const FORBIDDEN: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// A domain as DNS and TLS know it: A-labels in lower case. An address literal stays one.
///
/// Characters are mapped as browsers do (UTS 46, not transitional), so that `BÜCHER。example` is
/// found too. Whether a label may be registered is not asked.
///
/// # Errors
/// Characters that are in no domain, directions or joiners out of their place, a label of more
/// than 63 octets, a name of more than 253.
pub fn to_ascii(domain: &str) -> Result<Cow<'_, str>, NotADomain> {
    if domain.is_ascii() {
        return Ok(match domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => domain.to_ascii_lowercase().into(),
            false => domain.into(),
        });
    }
    Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            FORBIDDEN,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .map_err(|_| NotADomain(domain.to_owned()))
}

/// The one spelling by which a domain is compared: its ASCII form, or where it has none, the
/// domain in lower case.
pub fn key(domain: &str) -> Cow<'_, str> {
    to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase().into())
}

/// Whether both are one domain.
pub fn is_same(one: &str, other: &str) -> bool {
    match one.is_ascii() && other.is_ascii() {
        true => one.eq_ignore_ascii_case(other),
        false => key(one) == key(other),
    }
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
            ("bücher.example.", "xn--bcher-kva.example."),
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
