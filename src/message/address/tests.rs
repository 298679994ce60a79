use super::*;

#[test]
fn an_invalid_address_is_refused() {
    use AddressError::{Control, Domain, Empty, LocalPart, Path, Quotes, TooLong};
    for (text, why) in [
        ("", Empty),
        ("<>", Empty),
        ("\"\"", Empty),
        ("a\0b@example.org", Control),
        ("a@example.org\r\nRCPT TO:<x>", Control),
        ("a@example.org\n", Control),
        ("a\u{9b}31m@example.org", Control),
        ("a\u{202e}b@example.org", Control),
        (&"x".repeat(65536), TooLong),
        ("@", LocalPart),
        ("@example.org", LocalPart),
        (".@example.org", LocalPart),
        ("a b@example.org", LocalPart),
        (" a@example.org", LocalPart),
        ("a,b@example.org", LocalPart),
        ("Joe <joe@example.org>", LocalPart),
        ("joe(c)@example.org", LocalPart),
        ("<<a@example.org>>", LocalPart),
        ("<a@example.org", LocalPart),
        ("a@example.org>", Domain),
        ("a>b@example.org", LocalPart),
        ("a\\b@example.org", LocalPart),
        ("a\"b\"@example.org", LocalPart),
        ("\u{a0}a@example.org", LocalPart),
        ("a\u{3000}b@example.org", LocalPart),
        ("\u{feff}a@example.org", LocalPart),
        ("a\u{200b}", LocalPart),
        ("\"a", Quotes),
        ("\"", Quotes),
        ("\"a\\\"@example.org", Quotes),
        ("\"a\"b@example.org", Quotes),
        ("a@", Domain),
        ("a@b@example.org", Domain),
        ("a@example.org ", Domain),
        ("a@.", Domain),
        ("a@b..example", Domain),
        ("a@ü..example", Domain),
        ("a@[192.0.2]", Domain),
        ("@b@example.org:a@example.org", Domain),
        ("@b..c:a@example.org", Domain),
        ("@b.example:", LocalPart),
        ("@b.example,a@example.org", Domain),
        ("host!joe", Path),
    ] {
        assert_eq!(Address::parse(text), Err(why), "{text:?}");
    }
    assert_eq!(Address::from_bytes(b"\xff@x"), Err(AddressError::NotUtf8));
}

#[test]
fn a_valid_address_is_unchanged() {
    for text in [
        "-f@example.org",
        "\"a b\"@example.org",
        "\"a  \\\"@\\\\\"@example.org",
        "\"\"@example.org",
        "\"a\u{a0}b\"@example.org",
        "ö@exämple.org",
        "alice",
        "\"a@b\"",
        "a..b.@docomo.example",
        "a!b%c@example.org",
        "a@[192.0.2.1]",
        "a@[IPv6:::1]",
        "a@1.2.3.4",
        "a@-x_.example",
    ] {
        assert_eq!(Address::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn brackets_routes_and_final_dots_are_removed() {
    for text in [
        "<a@b.example>",
        "a@b.example.",
        "@c.example:a@b.example",
        "<@c.example,@[IPv6:::1]:a@b.example.>",
    ] {
        assert_eq!(Address::parse(text).unwrap().as_str(), "a@b.example");
    }
    assert_eq!(Address::parse("<alice>").unwrap().as_str(), "alice");
}

#[test]
fn every_user_name_without_controls_gives_an_address() {
    for (name, address) in [
        ("joe", "joe"),
        ("joe@corp.example", "joe@corp.example"),
        ("CORP\\joe", "\"CORP\\\\joe\""),
        ("joe doe", "\"joe doe\""),
        ("a!\"b", "\"a!\\\"b\""),
    ] {
        assert_eq!(Address::of_user(name).unwrap().as_str(), address);
    }
    assert_eq!(Address::of_user("a\nb"), Err(AddressError::Control));
}

#[test]
fn the_domain_is_after_the_last_at_sign_outside_of_quotes() {
    let parse = |text| Address::parse(text).unwrap();
    let address = parse("\"a@b\"@Example.org");
    assert_eq!(address.domain(), Some("Example.org"));
    assert_eq!(address.local_part(), "\"a@b\"");
    for bare in ["alice", "\"a@b\""] {
        let address = parse(bare);
        assert_eq!((address.domain(), address.local_part()), (None, bare));
        let whole = address.qualified("h.example").unwrap();
        assert_eq!(whole.as_str(), format!("{bare}@h.example"));
    }
    let longest = parse(&"x".repeat(Address::MAX_LEN));
    assert_eq!(longest.qualified("host"), Err(AddressError::TooLong));
}

/// An earlier version accepted these addresses, and its spools must stay readable.
#[test]
fn stored_addresses_read_back() {
    for text in [
        "a b@example.org",
        "a@b@c",
        "<a@b",
        "a@",
        "@",
        "x@b.",
        "a>b@c",
        "a\u{202e}@x",
    ] {
        let address = Address::stored(text).unwrap();
        assert_eq!(address.as_str(), text);
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    }
    for text in ["", "a\nb@x"] {
        assert!(Address::stored(text).is_err());
    }
    assert_eq!(ReversePath::stored(""), Ok(ReversePath::Null));
}

#[test]
fn a_non_ascii_domain_becomes_ascii_unless_the_local_part_is_not() {
    for (address, wire) in [
        ("a@Example.ORG", "a@Example.ORG"),
        ("a@Bücher.example", "a@xn--bcher-kva.example"),
        ("\"a@b\"@bücher.example", "\"a@b\"@xn--bcher-kva.example"),
        ("ö@bücher.example", "ö@bücher.example"),
        ("ö@example.org", "ö@example.org"),
        ("ö", "ö"),
    ] {
        let address = Address::parse(address).unwrap();
        assert_eq!(address.on_wire().as_deref(), Ok(wire));
    }
    for (stored, wire) in [
        ("a@X.example.", "a@x.example"),
        ("ö@x.example.", "ö@x.example"),
    ] {
        assert_eq!(
            Address::stored(stored).unwrap().on_wire().as_deref(),
            Ok(wire)
        );
    }
    for address in ["a@ü..example", "ö@ü..example"] {
        assert!(Address::stored(address).unwrap().on_wire().is_err());
    }
}

#[test]
fn repeats_are_removed_and_the_order_is_kept() {
    let list = [
        "b@X.org",
        "a@x.org",
        "b@x.ORG",
        "B@x.org",
        "b@ü.org",
        "b@xn--tda.org",
        "b@x.org.",
        "\"b\"@x.org",
        "\"\\b\"@x.org",
        "\"b \"@x.org",
        "a@[IPv6:::1]",
        "a@[ipv6:0::1]",
    ]
    .map(|text| Address::parse(text).unwrap())
    .to_vec();
    let kept: Vec<String> = without_repeats(list)
        .into_iter()
        .map(String::from)
        .collect();
    assert_eq!(
        kept,
        [
            "b@X.org",
            "a@x.org",
            "B@x.org",
            "b@ü.org",
            "\"b \"@x.org",
            "a@[IPv6:::1]"
        ]
    );
}

#[test]
fn an_empty_path_is_the_null_sender() {
    assert_eq!(ReversePath::parse(b""), Ok(ReversePath::Null));
    assert_eq!(ReversePath::parse(b"<>"), Ok(ReversePath::Null));
    assert!(ReversePath::parse(b"\n").is_err());
}
