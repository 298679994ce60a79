use crate::config::{Config, DEFAULT};

/// Formats all of a configuration, except the line that names a notice's text file.
fn meaning(config: &Config) -> String {
    let mut config = config.clone();
    for file in &mut config.notices.files {
        file.place.clear();
    }
    format!("{config:?}")
}

#[track_caller]
fn comes_back(text: &str) -> String {
    let config = Config::parse(text, "given").unwrap();
    let written = config.to_toml().unwrap();
    let again = Config::parse(&written, "written").unwrap_or_else(|error| {
        panic!("{error}\n{written}");
    });
    assert_eq!(meaning(&again), meaning(&config), "{written}");
    assert_eq!(again.to_toml().unwrap(), written);
    written
}

#[test]
fn what_is_written_means_the_same() {
    comes_back("");
    comes_back(DEFAULT);
    let written = comes_back(
        r#"
        hostname = "bücher.example"
        [accept]
        max_size = "18446744073709551615"
        min_free = "1234567"
        timeout = "90s 5ms"
        max_hold = "5w"
        [log]
        to = "stderr"
        format = "json"
        [retry]
        delays = ["90m", "1h"]
        cap = "2h"
        [[retry.domain]]
        domain = "x.test"
        phases = [{ until = "1d", every = "1h", factor = 1.25 }]
        [[retry.rule]]
        status = "4.7"
        reply = "*\"\\ e\u0301 *"
        after = "5m"
        [frozen]
        lifetime = "never"
        [notice.delay]
        after = []
        text_file = "a \"b\".txt"
        [transport."a.b"]
        type = "lmtp"
        host = ["unix:/run/x y", "[::1]:24"]
        retry.lifetime = "1h"
        [transport.c]
        type = "smtp"
        username = "é\u0301"
        token_file = "/t"
        [[route]]
        sender = "<>"
        transport = "c"
        [[route]]
        domain = ".x.test"
        sender = "@.y.test"
        transport = "a.b"
        "#,
    );
    for part in [
        "max_size = \"18446744073709551615\"\n",
        "min_free = 1234567\n",
        "timeout = \"1m 30s 5ms\"\n",
        "max_hold = \"35d\"\n",
        "delays = [\"1h 30m\", \"1h\"]\n",
        "[transport.\"a.b\".retry]\n",
        "domain = \".x.test\"\nsender = \"@.y.test\"\n",
    ] {
        assert!(written.contains(part), "{part}\n{written}");
    }
    let usual = comes_back("");
    for part in [
        "max_size = \"50M\"\n",
        "return_whole = \"64K\"\n",
        "max_hold = \"30d\"\n",
    ] {
        assert!(usual.contains(part), "{part}\n{usual}");
    }
}

#[test]
fn a_password_is_not_written() {
    let config = Config::parse(
        "[transport.x]\ntype = \"smtp\"\nusername = \"u\"\npassword = \"geheim\"\n",
        "given",
    )
    .unwrap();
    assert!(!config.to_toml().unwrap().contains("geheim"));
    assert_eq!(config.with_password().collect::<Vec<_>>(), ["x"]);
}

mod odd {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::{Config, comes_back};

    /// Strings that Rust's own quoting would not preserve in TOML: combining, invisible and control
    /// characters, quotes, line ends, TOML's syntax.
    fn text() -> impl Strategy<Value = String> {
        let marks = "[a-z\u{300}-\u{310}\u{feff}\u{200b}\u{202e}\u{85}\u{2028}\"'\\\\#=\\[\\]\n\r\t\u{1}\u{7f}é ]{0,12}";
        prop_oneof![marks, any::<String>()]
    }

    #[derive(Serialize)]
    struct Pipe {
        r#type: &'static str,
        command: Vec<String>,
        user: String,
        timeout: String,
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn texts_come_back(
            argument in text(), user in text(), glob in text(), subject in text(), words in text(),
            path in text(), sizes in any::<[u64; 2]>(), nanoseconds in any::<u64>(),
        ) {
            let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
            let braces = |text: &str| quoted(&text.replace('{', "{{").replace('}', "}}"));
            let pipe = Pipe {
                r#type: "pipe",
                command: vec!["x".into(), argument],
                user: user.clone(),
                timeout: format!("{nanoseconds}ns"),
            };
            // A subject is one line.
            let subject: String = subject.chars().filter(|c| !c.is_control()).collect();
            let given = format!(
                "[accept]\nmax_size = \"{}\"\nmin_free = \"{}k\"\n\
                 [[retry.rule]]\nafter = \"5m\"\nreply = {}\n\
                 [notice.bounce]\nsubject = {}\ntext = {}\n\
                 [transport.box]\ntype = \"maildir\"\npath = {}\n\
                 [transport.wire]\ntype = \"smtp\"\nusername = {}\npassword_file = {}\n\
                 [transport.pipe]\n{}",
                sizes[0], sizes[1], quoted(&glob), braces(&format!("s {subject}")),
                braces(&words), quoted(&path), quoted(&format!("u{user}")), quoted(&path),
                toml::to_string(&pipe).unwrap(),
            );
            // Skip what the configuration does not allow.
            if Config::parse(&given, "given").is_ok() {
                comes_back(&given);
            }
        }
    }
}
