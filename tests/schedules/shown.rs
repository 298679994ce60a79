//! What the program prints about its schedules.

use jiff::Timestamp;
use serde_json::Value;

use crate::program::Site;

const CONFIG: &str = r#"
[retry]
delays = ["5m", "15m", "1h"]
lifetime = "3h"
jitter = 0
cap = "2h"

[[retry.domain]]
domain = "phases.test"
phases = [ { until = "1h", every = "20m" }, { until = "3h", every = "30m", factor = 2.0 } ]

[[retry.domain]]
domain = "short.test"
lifetime = "30m"

[[retry.rule]]
status = "4.7"
reply = "*greylist*"
after = "5m"
until = "1h"

[bounce]
lifetime = "20m"

[transport.out]
type = "maildir"
path = "out"
retry.lifetime = "1h"

[transport.box]
type = "maildir"
path = "box"

[[route]]
domain = "out.test"
transport = "out"

[[route]]
domain = "*"
transport = "box"
"#;

#[test]
fn what_is_in_force_can_be_read_again() {
    let site = Site::new(CONFIG);
    let first = site.program(["config"], b"").ok();
    for part in [
        "[retry]\ndelays = [\"5m\", \"15m\", \"1h\"]\njitter = 0.0\ncap = \"2h\"\nlifetime = \"3h\"\n",
        "[[retry.domain]]\ndomain = \"short.test\"\ndelays = [\"5m\", \"15m\", \"1h\"]\n",
        "phases]]\nuntil = \"3h\"\nevery = \"30m\"\nfactor = 2.0\n",
        "[[retry.rule]]\nstatus = \"4.7\"\nreply = \"*greylist*\"\nafter = \"5m\"\nuntil = \"1h\"\n",
        "[bounce]\nlifetime = \"20m\"\n",
        "[transport.out.retry]\n",
    ] {
        assert!(first.contains(part), "{part}\n{first}");
    }
    std::fs::write(site.spool().join("config.toml"), &first).unwrap();
    assert_eq!(site.program(["config"], b"").ok(), first);
    site.program(["config", "check"], b"").ok();
    site.configure("[retry]\njitter = 7\n");
    let checked = site.program(["config", "check"], b"");
    assert_eq!(checked.code, 78, "{checked:?}");
    assert!(checked.err.contains("config.toml:3: jitter"), "{checked:?}");
}

fn schedule(site: &Site, arguments: &[&str]) -> Value {
    let arguments = ["schedule", "--json"].iter().chain(arguments);
    serde_json::from_str(&site.program(arguments, b"").ok()).unwrap()
}

/// The ages in minutes. Asserts that the times agree with them.
fn minutes(shown: &Value) -> Vec<i64> {
    let accepted: Timestamp = shown["accepted"].as_str().unwrap().parse().unwrap();
    let mut minutes = Vec::new();
    for (n, attempt) in shown["attempts"].as_array().unwrap().iter().enumerate() {
        assert_eq!(attempt["number"], n + 1);
        let age = attempt["age"].as_i64().unwrap();
        let time: Timestamp = attempt["time"].as_str().unwrap().parse().unwrap();
        let real = time.duration_since(accepted).as_secs();
        assert!((age..=age + 1).contains(&real), "{attempt}");
        minutes.push(age / 60);
    }
    minutes
}

#[test]
fn a_schedule_is_shown_with_its_source() {
    let site = Site::new(CONFIG);
    for (arguments, expected, source, transport) in [
        (&[][..], &[0, 5, 20, 80, 140, 180][..], "[retry]", None),
        (
            &["a@x.test"],
            &[0, 5, 20, 80, 140, 180],
            "[retry]",
            Some("box"),
        ),
        (&["root"], &[0, 5, 20, 80, 140, 180], "[retry]", Some("box")),
        (
            &["a@out.test"],
            &[0, 5, 20, 60],
            "[transport.out.retry]",
            Some("out"),
        ),
        (
            &["a@Short.test"],
            &[0, 5, 20, 30],
            "[[retry.domain]] Short.test",
            Some("box"),
        ),
        (
            &["a@phases.test"],
            &[0, 20, 40, 60, 90, 150, 180],
            "[[retry.domain]] phases.test",
            Some("box"),
        ),
        (&["--bounce"], &[0, 5, 20], "[retry]", None),
        (
            &["--bounce", "a@phases.test"],
            &[0, 20],
            "[[retry.domain]] phases.test",
            Some("box"),
        ),
    ] {
        let shown = schedule(&site, arguments);
        assert_eq!(minutes(&shown), expected, "{shown}");
        assert_eq!(shown["schedule"], source);
        assert_eq!(shown["transport"].as_str(), transport);
        assert_eq!(shown["cap"], 7200);
        assert_eq!(shown["rules"][0]["after"], 300);
        let bounce = arguments.contains(&"--bounce");
        assert_eq!(shown["then"], if bounce { "frozen" } else { "bounced" });
        assert_eq!(shown["null_sender"], bounce);
        let lifetime = shown["attempts"].as_array().unwrap().last().unwrap();
        assert_eq!(shown["lifetime"], lifetime["age"]);
    }
    let text = site.program(["schedule", "a@out.test"], b"").ok();
    for part in [
        "Address     a@out.test\n",
        "Transport   out, by [[route]] number 1 (domain out.test)\n",
        "Schedule    [transport.out.retry] (the transport has a schedule and the domain has none)\n",
        "No  Age  After  Time\n1   0s          20",
        "\n3   20m  15m    20",
        "After a reply with status 4.7 and text \"*greylist*\": 5m later while the message is younger than 1h.\n",
        "If the last attempt fails, the sender gets a bounce.\n",
        "From the null sender: 3 attempts in 20m, then frozen",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // Without jitter the output does not mention it.
    assert!(!text.contains("jitter"), "{text}");
    assert_eq!(site.program(["schedule", ""], b"").code, 64);
}

#[test]
fn the_default_schedule_and_mail_without_a_route() {
    let site = Site::new("[bounce]\nlifetime = \"0\"\n");
    let shown = schedule(&site, &["a@x.test"]);
    assert_eq!(shown["transport"], Value::Null);
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 32);
    // At 16 h, 22 h and so on, with jitter of up to 36 minutes, and none at the end.
    let time = |n: usize, name: &str| attempts[n][name].as_str().unwrap().parse().unwrap();
    for (n, jitter) in [(1, 90), (18, 2160), (31, 0)] {
        let (time, latest): (Timestamp, Timestamp) = (time(n, "time"), time(n, "latest"));
        assert_eq!(latest.duration_since(time).as_secs(), jitter, "{n}");
    }
    let text = site.program(["schedule", "a@x.test"], b"").ok();
    for part in [
        "Transport   none: no route matches\n",
        "Schedule    [retry] (the domain has no schedule; it is the default)\n",
        "\n11  2h 37m 30s   22m 30s     20",
        "\n32  4d           2h          20",
        "up to 10 % of its delay later",
        "From the null sender: 1 attempt in 0s",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let once = site.program(["schedule", "--bounce"], b"").ok();
    assert!(once.contains("If the first attempt fails, the message is frozen."));
}
