//! Domains, and the spellings that are the same domain.
//!
//! `bücher.example` (U-labels) and `xn--bcher-kva.example` (A-labels, RFC 5890) are one domain. So is
//! either with a final dot, which in DNS marks a fully qualified name; mail uses only such names (RFC 5321,
//! 2.3.5). All spellings of an address literal are one domain, too.
//!
//! DNS, TLS, and servers without SMTPUTF8 know only A-labels. [`check`] is for submitted domains.
//! Everything else takes any text, because a spool may hold addresses that an earlier version accepted.

use core::net::{IpAddr, Ipv6Addr};
use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The domain has no ASCII form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid internationalised domain name (RFC 5891)")]
pub struct NotADomain(String);

/// The ASCII characters that no host name contains. The underscore is allowed, because some names have it.
const FORBIDDEN: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// The domain has an invalid character, an empty label, or a label or a name that is too long for DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDomain;

/// The longest label of a name in DNS, in octets (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The longest name in DNS, in octets, without a final dot.
const MAX_NAME: usize = 253;

/// Checks that mail can be addressed to a domain: a name that can be looked up in DNS, or an address
/// literal. Hyphens and underscores may be anywhere in a name, because some names in use have them there,
/// and the lookup decides. A final dot is not part of the domain.
///
/// # Errors
/// The domain is invalid. A later attempt would fail the same way.
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

/// Returns the address in an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`. No other kinds
/// are defined (RFC 5321, 4.1.3).
pub fn literal(domain: &str) -> Option<IpAddr> {
    let text = domain.strip_prefix('[')?.strip_suffix(']')?;
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            text[5..].parse::<Ipv6Addr>().ok().map(IpAddr::from)
        }
        _ => text.parse().ok(),
    }
}

/// Returns the domain without its final dot. Two final dots are kept, so that a second call changes
/// nothing.
pub fn without_final_dot(domain: &str) -> &str {
    match domain.strip_suffix('.') {
        Some(name) if !name.is_empty() && !name.ends_with('.') => name,
        _ => domain,
    }
}

/// Returns the domain in the form that DNS and TLS use: A-labels in lower case, without a final dot. An
/// address literal stays a literal.
///
/// Characters are mapped as browsers map them (UTS 46, non-transitional), so that `BÜCHER。example` works
/// too. Registration rules are not checked.
///
/// # Errors
/// An invalid character, an invalid use of text direction or joiners, a label of more than 63 octets, or a
/// name of more than 253.
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
    // The final dot may have been a non-ASCII one.
    Ok(match ascii.strip_suffix('.') {
        Some(name) => name.to_owned().into(),
        None => ascii,
    })
}

/// Returns the spelling for comparing domains: the ASCII form, or, if there is none, the domain in lower
/// case. An address literal is formatted by `std`.
pub fn key(domain: &str) -> Cow<'_, str> {
    match literal(domain) {
        Some(IpAddr::V4(address)) => return format!("[{address}]").into(),
        Some(IpAddr::V6(address)) => return format!("[ipv6:{address}]").into(),
        None => {}
    }
    to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase().into())
}

/// Whether both are the same domain.
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
            // A lone dot is kept, because nothing would be left without it.
            (".", "."),
            ("_x.bücher.example", "_x.xn--bcher-kva.example"),
            // Non-transitional: names that exist in DNS with this letter are found.
            ("straße.example", "xn--strae-oqa.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            // ASCII is not checked.
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
    fn check_accepts_dns_names_and_address_literals() {
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

    /// Regression: `x..` lost one dot when it was stored and another when it was read back.
    #[test]
    fn only_a_single_final_dot_is_removed() {
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
    fn an_invalid_domain_has_no_ascii_form() {
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
