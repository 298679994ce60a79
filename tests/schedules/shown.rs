//! What the program says of its schedules.

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
        "{ until = \"3h\", every = \"30m\", factor = 2.0 },\n",
        "[[retry.rule]]\nstatus = \"4.7\"\nreply = \"*greylist*\"\nafter = \"5m\"\nuntil = \"1h\"\n",
        "[bounce]\nlifetime = \"20m\"\n",
        "[transport.\"out\".retry]\n",
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
