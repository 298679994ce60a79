//! Transports that cannot be used: their mail waits, all other mail is delivered.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::program::{BOX, Site, route};
use super::{everything_by, is_deferred};

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_missing_file_defers_its_own_mail_and_no_other() {
    let broken = "\n[transport.broken]\ntype = \"smtp\"\nhost = \"[127.0.0.1]:1\"\n\
                  tls = \"verified\"\ntls_ca = \"{dir}/roots.pem\"\n"
        .to_owned()
        + &route("domain", "broken.test", "broken");
    let site = Site::new(&(broken + BOX));
    site.queue(&["x@broken.test"]);
    site.queue(&["y@fine.test"]);
    let said = site.run().ok();
    assert_eq!(said, "2 messages: 1 delivered, 1 deferred, 0 failed.\n");
    assert_eq!(site.boxed().len(), 1);
    is_deferred(&site, "4.3.5 the transport \"broken\" cannot be used: ");
    is_deferred(&site, "roots.pem: No such file or directory");
    let checked = site.program(["config", "check"], b"");
    assert_eq!(checked.code, 78);
    assert!(
        checked.err.starts_with("mailspool: transport.broken: "),
        "{checked}"
    );

    // It is not recorded as a down destination: after the repair it works at once.
    let listed = site.program(["destinations"], b"").ok();
    assert_eq!(listed, "All destinations are up.\n");
    fs::write(site.dir().join("roots.pem"), "no certificate").unwrap();
    let checked = site.program(["config", "check"], b"");
    assert!(
        checked.err.contains("no usable certificate in it"),
        "{checked}"
    );
}

#[test]
fn secrets_that_others_can_read_are_not_used() {
    let keys = "type = \"smtp\"\nhost = \"relay.test\"\nusername = \"u\"\n";
    let site = Site::new(&everything_by(&format!(
        "{keys}password_file = \"{{dir}}/pw\""
    )));
    let path = site.dir().join("pw");
    fs::write(&path, "geheim\n").unwrap();
    for mode in [0o640, 0o604] {
        chmod(&path, mode);
        let checked = site.program(["config", "check"], b"");
        assert_eq!(checked.code, 78, "{checked}");
        let path = path.display();
        let words = format!(
            "mailspool: transport.out: password_file {path}: others can read it: run \
             `chmod go= {path}`\n"
        );
        assert_eq!(checked.err, words);
        for look in ["route", "probe"] {
            let ended = site.program([look, "x@x.test"], b"");
            assert_eq!(ended.code, 75, "{ended}");
            let words = format!("it is deferred: 4.3.5 password_file {path}: others can");
            assert!(ended.text().contains(&words), "{ended}");
        }
    }
    chmod(&path, 0o600);
    site.program(["config", "check"], b"").ok();
    fs::write(&path, "\n").unwrap();
    let checked = site.program(["config", "check"], b"");
    assert!(checked.err.contains("first line is empty"), "{checked}");

    site.configure(&everything_by(&format!("{keys}password = \"geheim\"")));
    let config = site.spool().join("config.toml");
    chmod(&config, 0o644);
    let checked = site.program(["config", "check"], b"");
    assert_eq!(checked.code, 78, "{checked}");
    assert!(checked.err.contains("others can read it"), "{checked}");
    chmod(&config, 0o600);
    site.program(["config", "check"], b"").ok();
    let shown = site.program(["config"], b"").ok();
    assert!(
        !shown.contains("geheim") && shown.contains("password: not shown"),
        "{shown}"
    );
}

/// The output of `mailspool config` is a configuration with the same meaning.
#[test]
fn what_is_in_force_can_be_read_again() {
    let keys = "type = \"smtp\"\nhost = [\"a.test\", \"unix:/run/x\"]\nport = 587\n\
                tls = \"required\"\ntls_min = \"1.3\"\nusername = \"u\"\n\
                password_file = \"/x\"\nauth = \"plain\"\ntimeout = \"1m\"";
    let site = Site::new(&(everything_by(keys) + "\n[dns]\nservers = [\"192.0.2.53\"]\n"));
    let first = site.program(["config"], b"").ok();
    fs::write(site.spool().join("config.toml"), &first).unwrap();
    assert_eq!(site.program(["config"], b"").ok(), first);
    for line in [
        "port = 587",
        "tls_min = \"1.3\"",
        "auth = \"plain\"",
        "timeout = \"1m\"",
    ] {
        assert!(first.contains(line), "{first}");
    }
}
