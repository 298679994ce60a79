//! Which transport a recipient gets. Computed at every attempt, so that a mended
//! configuration mends queued mail.

use crate::message::{Address, domain};

/// Which recipients a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All of them.
    Any,
    /// Those of one domain, whatever its case and however it is spelled.
    Domain(String),
    /// One mailbox.
    Recipient(Address),
}

/// One `[[route]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is for.
    pub pattern: Pattern,
    /// The transport's name.
    pub transport: String,
}

/// The rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(pub Vec<Rule>);

impl Pattern {
    fn matches(&self, recipient: &Address) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Domain(wanted) => recipient
                .domain()
                .is_some_and(|of| domain::is_same(of, wanted)),
            Pattern::Recipient(address) => recipient.same_mailbox(address),
        }
    }
}

impl Routes {
    /// One rule: everything by this transport.
    pub fn all_by(transport: impl Into<String>) -> Routes {
        Routes(vec![Rule {
            pattern: Pattern::Any,
            transport: transport.into(),
        }])
    }

    /// The transport of the first rule that matches.
    pub fn transport_for(&self, recipient: &Address) -> Option<&str> {
        self.rule_for(recipient)
            .map(|(_, rule)| rule.transport.as_str())
    }

    /// The first rule that matches, and its number, counted from 0.
    pub fn rule_for(&self, recipient: &Address) -> Option<(usize, &Rule)> {
        let mut rules = self.0.iter().enumerate();
        rules.find(|(_, rule)| rule.pattern.matches(recipient))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_wins() {
        let address = |text| Address::parse(text).unwrap();
        let rule = |pattern, transport: &str| Rule {
            pattern,
            transport: transport.into(),
        };
        let mut routes = Routes(vec![
            rule(
                Pattern::Recipient(address("support@example.org")),
                "tickets",
            ),
            rule(Pattern::Domain("example.org".into()), "local"),
        ]);
        assert_eq!(
            routes.transport_for(&address("support@Example.ORG")),
            Some("tickets")
        );
        assert_eq!(
            routes.transport_for(&address("Support@example.org")),
            Some("local")
        );
        assert_eq!(routes.transport_for(&address("x@sub.example.org")), None);
        routes.0.push(rule(Pattern::Any, "out"));
        assert_eq!(
            routes.transport_for(&address("x@sub.example.org")),
            Some("out")
        );
        assert_eq!(routes.transport_for(&address("nodomain")), Some("out"));
    }

    #[test]
    fn a_domain_matches_however_it_is_spelled() {
        let spellings = ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"];
        for (rule, spelling) in spellings.iter().flat_map(|r| spellings.map(|s| (*r, s))) {
            let to = Address::parse(&format!("a@{spelling}")).unwrap();
            let one = Address::parse(&format!("a@{rule}")).unwrap();
            for pattern in [Pattern::Domain(rule.into()), Pattern::Recipient(one)] {
                assert!(pattern.matches(&to), "{rule} {spelling}");
                let other = Address::parse("a@bucher.example").unwrap();
                assert!(!pattern.matches(&other));
            }
        }
    }
}
