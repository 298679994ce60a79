use super::*;
use proptest::prelude::*;

#[track_caller]
fn found(list: &str) -> Vec<String> {
    let parsed = parse(list.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    parsed.into_iter().map(String::from).collect()
}

#[track_caller]
fn wrong(list: impl AsRef<[u8]>) -> (String, NoAddress) {
    let error = parse(list.as_ref()).expect_err("it is not a list");
    (error.text, error.why)
}

#[test]
fn the_examples_of_rfc_5322_are_parsed() {
    for (list, addresses) in [
        // A.1.2, A.1.3
        (
            "\"Joe Q. Public\" <john.q.public@example.com>",
            &["john.q.public@example.com"][..],
        ),
        (
            "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
            &["mary@x.test", "jdoe@example.org", "one@y.test"],
        ),
        (
            "<boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sysservices@example.net>",
            &["boss@nil.test", "sysservices@example.net"],
        ),
        (
            "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
            &["c@a.test", "joe@where.test", "jdoe@one.test"],
        ),
        ("Undisclosed recipients:;", &[]),
        // A.5
        (
            "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
            &["pete@silly.test"],
        ),
        (
            "A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n         \
             joe@example.org,\r\n  John <jdoe@one.test> (my dear friend); (the end of the group)\r\n",
            &["c@public.example", "joe@example.org", "jdoe@one.test"],
        ),
        (
            "(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;",
            &[],
        ),
        // A.6.1, A.6.3
        (
            "Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example",
            &["mary@example.net", "jdoe@test.example"],
        ),
        (
            "Joe Q. Public <john.q.public@example.com>",
            &["john.q.public@example.com"],
        ),
        (
            "John Doe <jdoe@machine(comment).  example>",
            &["jdoe@machine.example"],
        ),
    ] {
        assert_eq!(found(list), addresses, "{list}");
    }
}

#[test]
fn forms_in_real_headers_are_parsed() {
    for (list, addresses) in [
        ("root", &["root"][..]),
        ("root, a@x.test", &["root", "a@x.test"]),
        ("<root>, \"john doe\"", &["root", "\"john doe\""]),
        ("\"john doe\"@x.test", &["\"john doe\"@x.test"]),
        ("joe(c)@z.test", &["joe@z.test"]),
        ("joe @ x . test", &["joe@x.test"]),
        ("joe . doe@x.test", &["joe.doe@x.test"]),
        ("\"a b\" . c@x.test", &["\"a b.c\"@x.test"]),
        ("\"a\r\n b\"@x.test", &["\"a b\"@x.test"]),
        (
            "a@[IPv6:::1], b@[192.0.2.1]",
            &["a@[IPv6:::1]", "b@[192.0.2.1]"],
        ),
        ("a@[ 192.0.2.1 ]", &["a@[192.0.2.1]"]),
        ("a..b.@x.test", &["a..b.@x.test"]),
        ("a@x.test.", &["a@x.test"]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.test>", &["j@x.test"]),
        ("=?utf-8?Q?Smith,_Joe?= <j@x.test>", &["j@x.test"]),
        ("=?utf-8?Q?a@x.test?= <j@x.test>", &["j@x.test"]),
        (
            "J\u{f6}rg <j\u{f6}@b\u{fc}cher.test>",
            &["j\u{f6}@b\u{fc}cher.test"],
        ),
        ("a@x.test <a@X.test>", &["a@x.test"]),
        ("@r.test,@[IPv6:::1]:a@x.test", &["a@x.test"]),
        ("<@r.test, , @s.test : a@x.test>", &["a@x.test"]),
        ("a@x.test,\r\r\n\tb@x.test", &["a@x.test", "b@x.test"]),
        (
            "team: a@x.test, , b@x.test;, c@x.test",
            &["a@x.test", "b@x.test", "c@x.test"],
        ),
        ("undisclosed-recipients:", &[]),
        (" , ,, (none)", &[]),
        ("", &[]),
    ] {
        assert_eq!(found(list), addresses, "{list}");
    }
    // Display names and comments may be in any charset.
    let latin = parse(b"J\xf6rg (\xfc) <j@x.test>, \"\xf6\" <k@x.test>").unwrap();
    assert_eq!(latin.len(), 2);
}

#[test]
fn an_error_quotes_the_element() {
    use AddressError as Bad;
    use NoAddress::{EncodedWord, Follows, Open, Two, Unexpected, Words};
    for (list, text, why) in [
        ("a@x.test, bob at x, c@x.test", "bob at x", Words),
        ("host!joe", "host!joe", Bad::Path.into()),
        (
            "\"Joe <joe@x.test>, b@x.test",
            "\"Joe <joe@x.test>, b@x.test",
            Open('"'),
        ),
        (
            "a@x.test, Joe <joe@x.test, b@x.test",
            "Joe <joe@x.test, b@x.test",
            Open('<'),
        ),
        ("(a@x.test", "(a@x.test", Open('(')),
        ("a: b@x.test, c@x.test", "a: b@x.test, c@x.test", Open(':')),
        ("a@[192.0.2.1", "a@[192.0.2.1", Open('[')),
        ("=?utf-8?q?a@x.test?=", "=?utf-8?q?a@x.test?=", EncodedWord),
        ("=?utf-8?q?Smith", "=?utf-8?q?Smith", EncodedWord),
        ("a@x.test\n b@x.test", "a@x.test b@x.test", Follows),
        ("tim@p.test con@p.test", "tim@p.test con@p.test", Follows),
        ("a@x.test; b@x.test", "a@x.test; b@x.test", Follows),
        ("a@x.test <b@x.test>", "a@x.test <b@x.test>", Two),
        ("a b@x.test", "a b@x.test", Words),
        ("a\"b\"@x.test", "a\"b\"@x.test", Words),
        (
            "x> NOTIFY=NEVER@x.test",
            "x> NOTIFY=NEVER@x.test",
            Unexpected('>'),
        ),
        ("Joe\\@x.test", "Joe\\@x.test", Unexpected('\\')),
        ("a: b: c@x.test;;", "b: c@x.test;;", Unexpected(':')),
        ("<>", "<>", Bad::Empty.into()),
        ("\"\"", "\"\"", Bad::Empty.into()),
        ("@", "@", Bad::Domain.into()),
        ("@x.test", "@x.test", Bad::LocalPart.into()),
        ("a@", "a@", Bad::Domain.into()),
        ("a@,b@x.test", "a@", Bad::Domain.into()),
        ("<@r.test>", "<@r.test>", Unexpected('>')),
        ("a@x..test", "a@x..test", Bad::Domain.into()),
        ("a@b@x.test", "a@b@x.test", Follows),
        (".", ".", Bad::LocalPart.into()),
        (
            "a@x.test\rBcc: b@x.test",
            "a@x.test Bcc: b@x.test",
            Bad::Control.into(),
        ),
        ("a\0@x.test", "a@x.test", Bad::Control.into()),
        ("\"a\u{1b}\"@x.test", "\"a\"@x.test", Bad::Control.into()),
    ] {
        assert_eq!(wrong(list), (text.to_owned(), why), "{list:?}");
    }
    assert_eq!(wrong(b"j\xf6@x.test").1, Bad::NotUtf8.into());
    let long = format!("{} at x", "y".repeat(100_000));
    assert!(wrong(long).0.len() <= MAX_NAMED);
}

#[test]
fn a_command_line_list_needs_an_address() {
    let parsed = parse_line(b"Joe <joe@x.test>, a@x.test").unwrap();
    assert_eq!(parsed.len(), 2);
    for (line, why) in [
        ("", AddressError::Empty.into()),
        (" ", AddressError::Empty.into()),
        ("none:;", NoAddress::NoneThere),
        (",", NoAddress::NoneThere),
        ("a@x.test\n", AddressError::Control.into()),
        ("a\n@x.test", AddressError::Control.into()),
    ] {
        assert_eq!(
            parse_line(line.as_bytes()).unwrap_err().why,
            why,
            "{line:?}"
        );
    }
}

proptest! {
    /// Each of several addresses is returned unchanged, for any separator and any display name.
    #[test]
    fn no_address_is_dropped_joined_or_made_up(
        names in prop::collection::vec("[a-z]{1,3}(\\.[a-z]{1,3})?|\"[a-z ,<@]{1,4}\"", 1..6),
        dress in prop::collection::vec(0..7_usize, 6),
        between in prop::sample::select(vec![",", " , ", ",\n ", ",\r\r\n\t", "(,)\n ,,"]),
    ) {
        let expected: Vec<String> = names.iter().map(|name| format!("{name}@x.test")).collect();
        let dressed: Vec<String> = expected.iter().zip(&dress).map(|(address, how)| match how {
            0 => address.clone(),
            1 => format!("<{address}>"),
            2 => format!("A B. <{address}>"),
            3 => format!("\"A, <c@d>\" <@r.test:{address}>"),
            4 => format!("(c@d) {address} (e, f@g)"),
            5 => format!("group: {address};"),
            _ => format!("=?a?q?,<c@d>?= <{address}>"),
        }).collect();
        prop_assert_eq!(found(&dressed.join(between)), expected);
    }

    /// Two addresses without a comma between them are an error.
    #[test]
    fn addresses_without_a_comma_are_an_error(
        blank in prop::sample::select(vec![" ", "\n ", "\t", "(c)", ";", "\r"]),
    ) {
        let list = format!("a@x.test{blank}b@x.test");
        prop_assert!(parse(list.as_bytes()).is_err());
    }
}
