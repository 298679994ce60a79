//! The part of a notice for people.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::case::Case;
use super::meaning::{Meaning, NonAscii};
use crate::message::text::shortened;
use crate::message::{Address, EnhancedCode, Reply, harmless, printable};
use crate::notice::{Action, Report};

/// Characters. Longer lines are broken at blanks.
const WIDTH: usize = 76;

/// Most recipients that are named. The rest are counted; the part for programs has all.
const MAX_NAMED: usize = 100;

/// Recipients with the same outcome and reply.
struct Group<'a> {
    action: Action,
    expired: bool,
    reply: &'a Reply,
    non_ascii: NonAscii,
    /// The first recipients, at most [`MAX_NAMED`].
    members: Vec<&'a Case<'a>>,
    /// The number of recipients.
    count: usize,
    /// The fewest and the most attempts of a recipient.
    attempts: (u32, u32),
    last_attempt: Option<Timestamp>,
}

/// Returns all recipients, grouped by reply. At most [`MAX_NAMED`] are named, and the others are counted.
/// Each reply has at least one named recipient, unless there are more replies than that.
pub(super) fn replies(cases: &[Case<'_>], report: &Report<'_>) -> String {
    let groups = groups(cases, report.sender);
    let (told, others) = groups.split_at(groups.len().min(MAX_NAMED));
    let mut room = MAX_NAMED - told.len();
    let text = |group: &Group<'_>| {
        let named = group.members.len().min(1 + room);
        room -= named - 1;
        group.text(named, report.origin.accepted())
    };
    let mut texts: Vec<String> = told.iter().map(text).collect();
    let rest: usize = others.iter().map(|group| group.count).sum();
    if rest > 0 {
        texts.push(format!("  and {rest} more, with other answers; {ATTACHED}"));
    }
    texts.join("\n\n")
}

const ATTACHED: &str = "the attached report has all of them";

fn groups<'a>(cases: &'a [Case<'a>], sender: &Address) -> Vec<Group<'a>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for case in cases {
        let Reply {
            code,
            enhanced,
            text,
            remote,
            relay: _,
        } = &*case.reply;
        let non_ascii = NonAscii::of(sender, case.address);
        let key = (
            (case.action, case.expired),
            (code, enhanced, text, remote),
            // Only texts about characters depend on this.
            enhanced
                .filter(|code| Meaning::is_of_characters(*code))
                .map(|_| non_ascii),
        );
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group {
                action: case.action,
                expired: case.expired,
                reply: &case.reply,
                non_ascii,
                members: Vec::new(),
                count: 0,
                attempts: (case.attempts, case.attempts),
                last_attempt: None,
            });
        }
        let group = &mut groups[place];
        group.count += 1;
        if group.members.len() < MAX_NAMED {
            group.members.push(case);
        }
        let (least, most) = group.attempts;
        group.attempts = (least.min(case.attempts), most.max(case.attempts));
        group.last_attempt = group.last_attempt.max(case.last_attempt);
    }
    groups
}

impl Group<'_> {
    fn text(&self, named: usize, accepted: Timestamp) -> String {
        let named = &self.members[..named];
        let mut lines: Vec<String> = named.iter().map(|name| recipient(name)).collect();
        match self.count - named.len() {
            0 => {}
            rest => lines.push(format!("  and {rest} more; {ATTACHED}")),
        }
        lines.push(String::new());
        let said = match self.action {
            Action::Failed => self.failed(accepted),
            Action::Delayed => self.delayed(),
            Action::Delivered => vec!["The message was delivered.".to_owned()],
            Action::Relayed => self.relayed(),
        };
        for paragraph in said {
            fold(&paragraph, "    ", &mut lines);
            lines.push(String::new());
        }
        let introduction = match (&self.reply.remote, self.action, self.expired) {
            (Some(remote), Action::Delayed, _) | (Some(remote), _, true) => {
                format!("The last answer of {} was:", printable(remote))
            }
            (Some(remote), _, _) => format!("{} said:", printable(remote)),
            (None, Action::Failed | Action::Delayed, _) => {
                if self.meaning().what.is_empty() {
                    "The reason:".to_owned()
                } else {
                    "In technical terms:".to_owned()
                }
            }
            (None, _, _) => return lines.join("\n").trim_end().to_owned(),
        };
        fold(&introduction, "    ", &mut lines);
        fold(&printable(&self.reply.to_string()), "      ", &mut lines);
        lines.join("\n")
    }

    /// Returns what happened and what the sender can do, a paragraph each.
    fn failed(&self, accepted: Timestamp) -> Vec<String> {
        let meaning = self.meaning();
        let mut said = Vec::new();
        if self.expired {
            let last = self.last_attempt.map_or(String::new(), |at| {
                format!(", the last time on {}", time(at))
            });
            let tried = match self.attempts {
                (least, most) if least == most => times(most),
                (_, most) => format!("up to {}", times(most)),
            };
            said.push(format!(
                "The time for delivery is over. It was tried {tried} since {}{last}.",
                time(accepted)
            ));
        }
        let words = format!("{} {}", meaning.what, meaning.advice);
        if !words.trim().is_empty() {
            said.push(words.trim().to_owned());
        }
        said
    }

    fn delayed(&self) -> Vec<String> {
        let what = self.meaning().what;
        if what.is_empty() {
            Vec::new()
        } else {
            vec![what.to_owned()]
        }
    }

    fn relayed(&self) -> Vec<String> {
        let to = match &self.reply.remote {
            Some(remote) => printable(remote),
            None => "the next mail system".to_owned(),
        };
        vec![format!(
            "The message was passed on to {to}, which does not confirm deliveries. You will \
             hear from there only if a problem occurs."
        )]
    }

    fn meaning(&self) -> Meaning {
        let ours = self.reply.remote.is_none();
        let of = |code| Meaning::of(code, ours, self.non_ascii);
        let known = self.reply.enhanced.and_then(of);
        known.unwrap_or_else(|| {
            match (self.reply.code, ours) {
                // Without an enhanced code, these two have the same meaning everywhere (RFC 5321, 4.2.3).
                (Some(552), _) => of(EnhancedCode::new(5, 3, 4)),
                (Some(421), _) => of(EnhancedCode::new(4, 3, 2)),
                _ => None,
            }
            .unwrap_or(Meaning::unknown(ours))
        })
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    }
}

/// Returns a recipient's line, with the address that the sender wrote to if it differs.
fn recipient(case: &Case<'_>) -> String {
    let address = harmless(case.address.as_str());
    let original = case.original.map(|recipient| harmless(&recipient.address));
    match original {
        Some(original) if !is_same(&original, case.address) => {
            format!("  {address} (you wrote to {original})")
        }
        _ => format!("  {address}"),
    }
}

fn is_same(original: &str, address: &Address) -> bool {
    Address::parse(original).is_ok_and(|original| original.same_mailbox(address))
}

/// Returns at most `most` addresses in one line.
pub(super) fn recipients(cases: &[Case<'_>], most: usize) -> String {
    let named = cases.iter().take(most);
    let mut names: Vec<String> = named
        .map(|recipient| harmless(recipient.address.as_str()))
        .collect();
    if cases.len() > most {
        names.push(format!("and {} more", cases.len() - most));
    }
    names.join(", ")
}

/// Returns a time for people. In UTC, so that no time zone file is needed.
pub(super) fn time(at: Timestamp) -> String {
    let at = at.to_zoned_datetime(TimeZone::UTC);
    at.strftime("%-d %B %Y, %H:%M UTC").to_string()
}

/// Returns a text with long lines broken at blanks; continuation lines have the same indentation.
pub(super) fn folded(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        let (indent, words) = line.split_at(line.len() - line.trim_start().len());
        if line.chars().count() > WIDTH {
            fold(words, &shortened(indent.to_owned(), 40), &mut lines)
        } else {
            lines.push(line.to_owned())
        }
    }
    lines.join("\n") + "\n"
}

fn fold(words: &str, indent: &str, lines: &mut Vec<String>) {
    let mut line = indent.to_owned();
    let mut length = indent.chars().count();
    let begun = length;
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let more = word.chars().count();
        if length > begun && length + 1 + more > WIDTH {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            length = begun;
        }
        if length > begun {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += more;
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_blanks_and_keep_their_indentation() {
        let long = format!(
            "  a {} b\n\n{}\nshort  \n",
            "x".repeat(80),
            "word ".repeat(20)
        );
        let folded = folded(&long);
        let lines: Vec<&str> = folded.split('\n').collect();
        assert_eq!(lines[0], "  a");
        assert_eq!(lines[1], format!("  {}", "x".repeat(80)));
        assert_eq!(lines[2..4], ["  b", ""]);
        assert_eq!(lines[4], "word ".repeat(15).trim_end());
        assert_eq!(lines[5..], ["word word word word word", "short", ""]);
    }

    #[test]
    fn times_are_for_people() {
        let at = "2026-11-02T14:05:59Z".parse().unwrap();
        assert_eq!(time(at), "2 November 2026, 14:05 UTC");
    }
}
