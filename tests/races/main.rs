//! Two processes step by step.
mod turns;

#[test]
fn turns_are_taken() {
    use std::sync::Arc;
    use turns::{Choice, Hand, Point, run};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let program = || -> Box<dyn FnOnce(Arc<Hand>) -> bool + Send> {
        let path = path.clone();
        Box::new(move |hand| mailspool::spool::Spool::create(&path, Some(hand)).is_ok())
    };
    let ended = run(
        vec![program(), program()],
        mailspool::disk::Method::Each,
        |_| None,
        |point: &Point<'_>| {
            // In turn.
            let other = 1 - point.last.unwrap_or(0);
            Choice::Go(if point.at[other].is_some() {
                other
            } else {
                1 - other
            })
        },
    );
    for one in ended {
        assert!(one.unwrap());
    }
}
