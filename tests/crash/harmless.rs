//! Mutations after which nothing can be lost, and why.

/// Why nothing is lost without a sync in a story, if that is so.
pub fn why(label: &str, title: &str) -> Option<&'static str> {
    let fits = |(labels, titles, _): &&(&[&str], &[&str], &str)| {
        labels.iter().any(|one| label.starts_with(one))
            && (titles.is_empty() || titles.iter().any(|one| title.starts_with(one)))
    };
    LIST.iter().find(fits).map(|(.., why)| *why)
}

/// Labels (how they begin), the stories for which that holds (how their titles begin; all if there
/// are none), and the reason.
#[allow(clippy::type_complexity)]
const LIST: &[(&[&str], &[&str], &str)] = &[];
