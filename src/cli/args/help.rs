//! The texts after the options in each command's help: details, then examples.
//!
//! No line is wider than 80 columns.

pub(super) const PROGRAM: &str = "\
`receive` accepts mail from an MTA's pipe, `send` from users and programs.
Accepted mail is durable. Short-lived runs (`run`) deliver it.

The spool is the directory that --spool or MAILSPOOL_SPOOL names. The default is
/var/spool/mailspool if it exists, else mailspool in $XDG_STATE_HOME or
~/.local/state.

The configuration is the file that --config or MAILSPOOL_CONFIG names. The
default is /etc/mailspool/config.toml if it exists and the spool is
/var/spool/mailspool, else config.toml in the spool.

Examples:
  mailspool send you@example.net < message    accept a message and deliver it
  mailspool run                               attempt every message that is due
  mailspool list                              show the queue";

pub(super) const INIT: &str = "\
Examples:
  mailspool init                       create the default spool
  mailspool --spool /srv/spool init    create this spool
  mailspool init --user mail           as root: create it for the user mail";

pub(super) const SEND: &str = "\
Standard output gets only the message's id.

-t reads To, Cc and Bcc, or Resent-To, Resent-Cc and Resent-Bcc if these exist.

The TIME of --at is `18:00` (the next), `tomorrow 8:00`, `2030-06-03 08:00` (all
local), `2030-06-03T08:00Z`, or `+2h` from now. `mailspool retry` releases the
message earlier.

A KEY has up to 256 octets. Within accept.key_lifetime, a second submission with
the same KEY queues nothing and prints the id of the first.

Without -N, the sender is notified of failures, and of delays as configured.
--orcpt takes `rfc822;you@example.net`; an empty address means unset.

Examples:
  mailspool send you@example.net < message                   deliver it at once
  mailspool send -t --at 18:00 < message                     hold it until 18:00
  mailspool send --key order-17 you@example.net < message    safe to repeat";

pub(super) const RECEIVE: &str = "\
Exit status: 0 if the message is durable, 75 to keep it and try again, 65 if it
can never be accepted. Standard output then says why.

$SENDER is the variable that Exim and other MTAs set for their pipe commands.

A KEY has up to 256 octets, such as the MTA's queue id (Postfix: ${queue_id}).
Within accept.key_lifetime, a second submission with the same KEY and the same
recipients queues nothing.

Without -N, the sender is notified of failures, and of delays as configured.
--orcpt takes `rfc822;you@example.net`; an empty address means unset.

Examples:
  mailspool receive -f ${sender} -- ${recipient}       in Postfix's master.cf
  mailspool receive -f \"\" you@example.net < message    from the null sender";

pub(super) const RUN: &str = "\
--watch also reads the configuration again after a change or SIGHUP.

Examples:
  mailspool run                           attempt every message that is due
  mailspool run --quiet --max-time 50s    from cron, every minute
  mailspool run --watch                   keep running";

pub(super) const LIST: &str = "\
Examples:
  mailspool list           print a table
  mailspool list --json    print one JSON object per message";

pub(super) const COUNT: &str = "\
Examples:
  mailspool count           print the number of messages
  mailspool count --json    print the number for each queue";

pub(super) const SHOW: &str = "\
Examples:
  mailspool show 8c44                     show the message with 8c44 in its id
  mailspool show --headers 8c44           print its header
  mailspool show --message 8c44 > copy    save the message";

pub(super) const RETRY: &str = "\
Also attempts messages that `send --at` holds, restores discarded messages, and
requeues corrupt messages that were repaired.

Examples:
  mailspool retry 8c44                            attempt this message now
  mailspool retry --queue-only 8c44 91ab          let the next run attempt both
  mailspool retry --reason \"host is back\" 8c44    record the reason";

pub(super) const FLUSH: &str = "\
A failed attempt defers a message. Messages that `send --at` holds keep their
time.

Examples:
  mailspool flush                          attempt every deferred message now
  mailspool flush --dry-run                only count these messages
  mailspool flush --reason \"link is up\"    record the reason";

pub(super) const FREEZE: &str = "\
Examples:
  mailspool freeze 8c44                            hold it until `thaw`
  mailspool freeze --for 2d 8c44                   hold it for two days
  mailspool freeze --reason \"under review\" 8c44    record the reason";

pub(super) const THAW: &str = "\
A message that `send --at` holds is attempted at its time.

Examples:
  mailspool thaw 8c44                 release this message and attempt it
  mailspool thaw --queue-only 8c44    let the next run attempt it";

pub(super) const DISCARD: &str = "\
`mailspool retry` restores a message within discard.keep of the configuration.
With --now, the command also works on a full disk.

Examples:
  mailspool discard 8c44              discard this message
  mailspool discard --dry-run 8c44    only print what would be done
  mailspool discard --now 8c44        delete it; it cannot be restored";

pub(super) const BOUNCE: &str = "\
Examples:
  mailspool bounce 8c44                            fail it and notify its sender
  mailspool bounce --reason \"no such host\" 8c44    record the reason";

pub(super) const SUSPEND: &str = "\
New mail is accepted and waits. A destination may be written with or without its
transport and port: `relay:relay.example.net:587` or `relay.example.net`.

Examples:
  mailspool suspend example.net --for 2d    hold mail for this domain
  mailspool suspend --transport relay       hold mail by this transport
  mailspool suspend --all                   hold all mail";

pub(super) const RESUME: &str = "\
A destination may be written with or without its transport and port:
`relay:relay.example.net:587` or `relay.example.net`.

Examples:
  mailspool resume example.net          release mail for this domain
  mailspool resume --transport relay    release mail by this transport
  mailspool resume --all                end the suspension of all mail";

pub(super) const ROUTE: &str = "\
A route may depend on the sender.

Examples:
  mailspool route you@example.net            show the route of this address
  mailspool route -f \"<>\" you@example.net    for mail from the null sender";

pub(super) const SCHEDULE: &str = "\
The schedule may depend on the route, and the route on the sender.

Examples:
  mailspool schedule                             show the default schedule
  mailspool schedule you@example.net             show that of this recipient
  mailspool schedule --bounce you@example.net    show that of a bounce to it";

pub(super) const PROBE: &str = "\
Exit status: 0 if the connection succeeds, 75 if mail would be deferred, 69 if
it would bounce or there is no host to connect to.

Examples:
  mailspool probe you@example.net           show greeting, TLS and capabilities
  mailspool probe --json you@example.net    print them as JSON";

pub(super) const DESTINATIONS: &str = "\
Examples:
  mailspool destinations           print a table
  mailspool destinations --json    print one JSON object per line
  mailspool destinations clear     forget that destinations are down";

pub(super) const DESTINATIONS_CLEAR: &str = "\
Their mail is attempted when it is due.

Examples:
  mailspool destinations clear                      forget all of them
  mailspool destinations clear relay.example.net    forget this one";

pub(super) const CHECK: &str = "\
--repair moves files to corrupt/ for inspection, corrects modes, and removes
only files that never got a name. --json prints the findings, then the messages
of each state, then the totals.

Examples:
  mailspool check                       print findings and messages per queue
  mailspool check --repair --dry-run    print what a repair would do
  mailspool check --repair              repair the spool";

pub(super) const CONFIG: &str = "\
Examples:
  mailspool config            print every key with its value in force
  mailspool config check      find mistakes
  mailspool config default    print the default with explanations";

pub(super) const CONFIG_CHECK: &str = "\
Examples:
  mailspool config check                      check the configuration in force
  mailspool --config new.toml config check    check another file";

pub(super) const CONFIG_NOTICES: &str = "\
bounce: mail cannot be delivered. delay: mail is not delivered yet.
success: mail was delivered, and the sender requested a notice.
The examples use the configured wording.

Examples:
  mailspool config notices                        print all three kinds
  mailspool config notices bounce > bounce.eml    save one for a mail program";

pub(super) const CONFIG_DEFAULT: &str = "\
Examples:
  mailspool config default                  print it
  mailspool config default > config.toml    start a configuration file";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{ArgMatches, Command, CommandFactory};

    use super::super::Args;

    /// Returns every command with its path, such as `["destinations", "clear"]`.
    fn commands() -> Vec<(Vec<String>, Command)> {
        fn collect(path: &[String], command: &Command, all: &mut Vec<(Vec<String>, Command)>) {
            all.push((path.to_vec(), command.clone()));
            // clap adds `help` itself.
            for below in command
                .get_subcommands()
                .filter(|below| below.get_name() != "help")
            {
                let path = [path, &[below.get_name().to_owned()]].concat();
                collect(&path, below, all);
            }
        }
        let mut program = Args::command();
        program.build();
        let mut all = Vec::new();
        collect(&[], &program, &mut all);
        all
    }

    /// Splits a command line like a shell, up to the first redirection.
    fn words(line: &str) -> Vec<OsString> {
        let (mut words, mut word, mut is_quoted) = (Vec::new(), None, false);
        for c in line.chars().chain([' ']) {
            match c {
                '"' => {
                    is_quoted = !is_quoted;
                    word.get_or_insert_with(String::new);
                }
                '<' | '>' if !is_quoted => break,
                ' ' if !is_quoted => words.extend(word.take().map(OsString::from)),
                c => word.get_or_insert_with(String::new).push(c),
            }
        }
        assert!(!is_quoted, "{line}");
        words
    }

    fn path_of(mut matches: &ArgMatches) -> Vec<String> {
        let mut path = Vec::new();
        while let Some((name, below)) = matches.subcommand() {
            path.push(name.to_owned());
            matches = below;
        }
        path
    }

    #[test]
    fn every_help_ends_with_examples_that_parse() {
        let all = commands();
        assert!(all.len() > 25, "{}", all.len());
        for (path, command) in all {
            let help = command.clone().render_long_help().to_string();
            let (_, examples) = help.split_once("\n\nExamples:\n").expect(&help);
            let examples: Vec<&str> = examples.trim_end_matches('\n').split('\n').collect();
            assert!((2..=3).contains(&examples.len()), "{path:?}: {help}");
            for example in examples {
                let line = example.strip_prefix("  ").expect(example);
                let (line, effect) = line.split_once("    ").expect(example);
                let effect = effect.trim_start();
                assert!(!effect.is_empty() && !line.starts_with(' '), "{example}");
                let words = words(line);
                assert_eq!(words[0], "mailspool", "{example}");
                let matches = Args::command().try_get_matches_from(words);
                let matches = matches.unwrap_or_else(|error| panic!("{example}: {error}"));
                let called = path_of(&matches);
                assert!(called.starts_with(&path), "{example}: {called:?}");
            }
        }
    }

    #[test]
    fn help_fits_into_80_columns() {
        for (path, command) in commands() {
            let (long, short) = (
                command.clone().render_long_help().to_string(),
                command.clone().render_help().to_string(),
            );
            for line in long.lines().chain(short.lines()) {
                assert!(line.chars().count() <= 80, "{path:?}: {line}");
            }
        }
    }
}
