//! Chooses the transport for a recipient. It is chosen at every attempt, so that a corrected configuration
//! takes effect for queued mail.

use crate::message::{Address, ReversePath, domain};

/// The recipients or senders that a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All.
    Any,
    /// Those of one domain, in any case and spelling.
    Domain(String),
    /// Those of all subdomains of a domain, excluding the domain itself.
    Subdomains(String),
    /// One mailbox.
    Mailbox(Address),
    /// The null sender.
    Null,
}

/// One `[[route]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The senders that it applies to.
    pub sender: Pattern,
    /// The recipients that it applies to.
    pub recipient: Pattern,
    /// The transport's name.
    pub transport: String,
}

/// The rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(pub Vec<Rule>);

impl Pattern {
    fn matches(&self, address: &Address) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Domain(wanted) => address
                .domain()
                .is_some_and(|of| domain::is_same(of, wanted)),
            Pattern::Subdomains(above) => address
                .domain()
                .is_some_and(|of| domain::is_below(of, above)),
            Pattern::Mailbox(mailbox) => address.same_mailbox(mailbox),
            Pattern::Null => false,
        }
    }

    fn matches_sender(&self, sender: &ReversePath) -> bool {
        match (self, sender) {
            (Pattern::Any, _) | (Pattern::Null, ReversePath::Null) => true,
            (_, ReversePath::Null) => false,
            (pattern, ReversePath::Mailbox(address)) => pattern.matches(address),
        }
    }
}

impl Rule {
    /// Returns a rule for these recipients, from any sender.
    pub fn new(recipient: Pattern, transport: impl Into<String>) -> Rule {
        Rule {
            sender: Pattern::Any,
            recipient,
            transport: transport.into(),
        }
    }

    /// Limits the rule to these senders.
    #[must_use]
    pub fn from(self, sender: Pattern) -> Rule {
        Rule { sender, ..self }
    }
}

impl Routes {
    /// Returns one rule that routes all mail by this transport.
    pub fn all_by(transport: impl Into<String>) -> Routes {
        Routes(vec![Rule::new(Pattern::Any, transport)])
    }

    /// Returns the transport of the first rule that matches.
    pub fn transport_for(&self, sender: &ReversePath, recipient: &Address) -> Option<&str> {
        self.rule_for(sender, recipient)
            .map(|(_, rule)| rule.transport.as_str())
    }

    /// Returns the first rule that matches, and its number, counted from 0.
    pub fn rule_for(&self, sender: &ReversePath, recipient: &Address) -> Option<(usize, &Rule)> {
        let mut rules = self.0.iter().enumerate();
        rules.find(|(_, rule)| {
            rule.recipient.matches(recipient) && rule.sender.matches_sender(sender)
        })
    }

    /// Returns the transport of all recipients, if the first rule applies to all of them.
    pub fn only_transport(&self) -> Option<&str> {
        let first = self.0.first()?;
        let is_for_all = first.sender == Pattern::Any && first.recipient == Pattern::Any;
        is_for_all.then_some(first.transport.as_str())
    }

    /// Whether the result can depend on the sender.
    #[cfg(feature = "testing")]
    pub fn depend_on_sender(&self) -> bool {
        self.0.iter().any(|rule| rule.sender != Pattern::Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn to<'a>(routes: &'a Routes, recipient: &str) -> Option<&'a str> {
        routes.transport_for(&ReversePath::Null, &address(recipient))
    }

    #[test]
    fn the_first_match_wins() {
        let mut routes = Routes(vec![
            Rule::new(Pattern::Mailbox(address("support@example.org")), "tickets"),
            Rule::new(Pattern::Domain("example.org".into()), "local"),
        ]);
        assert_eq!(to(&routes, "support@Example.ORG"), Some("tickets"));
        assert_eq!(to(&routes, "Support@example.org"), Some("local"));
        assert_eq!(to(&routes, "x@sub.example.org"), None);
        routes.0.push(Rule::new(Pattern::Any, "out"));
        assert_eq!(to(&routes, "x@sub.example.org"), Some("out"));
        assert_eq!(to(&routes, "nodomain"), Some("out"));
    }

    #[test]
    fn subdomains_exclude_the_domain() {
        let routes = Routes(vec![Rule::new(
            Pattern::Subdomains("bücher.example".into()),
            "below",
        )]);
        for below in ["a.bücher.example", "a.b.XN--BCHER-KVA.example"] {
            assert_eq!(to(&routes, &format!("x@{below}")), Some("below"));
        }
        for other in ["bücher.example", "abücher.example", "x.bucher.example"] {
            assert_eq!(to(&routes, &format!("x@{other}")), None, "{other}");
        }
        assert_eq!(to(&routes, "nodomain"), None);
    }

    #[test]
    fn a_route_can_depend_on_the_sender() {
        let routes = Routes(vec![
            Rule::new(Pattern::Domain("far.test".into()), "far")
                .from(Pattern::Mailbox(address("boss@example.org"))),
            Rule::new(Pattern::Any, "boss").from(Pattern::Mailbox(address("boss@example.org"))),
            Rule::new(Pattern::Any, "ours").from(Pattern::Domain("example.org".into())),
            Rule::new(Pattern::Any, "notices").from(Pattern::Null),
        ]);
        let by = |sender: &str, recipient: &str| {
            let sender = ReversePath::parse(sender.as_bytes()).unwrap();
            routes
                .transport_for(&sender, &address(recipient))
                .map(str::to_owned)
        };
        assert_eq!(by("boss@Example.org", "x@far.test").as_deref(), Some("far"));
        assert_eq!(by("boss@example.org", "x@a.test").as_deref(), Some("boss"));
        assert_eq!(by("me@example.org", "x@far.test").as_deref(), Some("ours"));
        assert_eq!(by("<>", "x@far.test").as_deref(), Some("notices"));
        assert_eq!(by("me@other.test", "x@far.test"), None);
        assert!(routes.depend_on_sender() && !Routes::all_by("x").depend_on_sender());
    }

    #[test]
    fn a_domain_matches_in_any_spelling() {
        let spellings = [
            "bücher.example",
            "BÜCHER.example.",
            "xn--bcher-kva.example",
            "XN--BCHER-KVA.example.",
        ];
        for (rule, spelling) in spellings.iter().flat_map(|r| spellings.map(|s| (*r, s))) {
            // An earlier version stored the address with its final dot.
            let to = Address::stored(&format!("a@{spelling}")).unwrap();
            let mailbox = address(&format!("a@{rule}"));
            for pattern in [Pattern::Domain(rule.into()), Pattern::Mailbox(mailbox)] {
                assert!(pattern.matches(&to), "{rule} {spelling}");
                assert!(!pattern.matches(&address("a@bucher.example")));
            }
        }
    }
}
