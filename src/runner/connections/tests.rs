use super::*;

struct Scene {
    _dir: tempfile::TempDir,
    spool: Spool,
    connections: Arc<Connections>,
    destination: Destination,
    now: Timestamp,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        Scene {
            spool: Spool::create(&dir.path().join("spool")).unwrap(),
            _dir: dir,
            connections: Arc::default(),
            destination: Destination {
                transport: "out".into(),
                next_hop: "a.test".into(),
            },
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    fn ask(&self, most: usize) -> Gate {
        self.ask_again(most, None)
    }

    fn ask_again(&self, most: usize, retried: Option<Timestamp>) -> Gate {
        self.connections
            .ask(&self.spool, &self.destination, most, self.now, retried)
    }

    fn open(&self, most: usize) -> ConnectionSlot {
        match self.ask(most) {
            Gate::Open(slot) => slot,
            _ => panic!("no permit"),
        }
    }

    fn has_room(&self, in_hand: usize) -> bool {
        self.connections
            .has_room(&self.destination, 3, in_hand, self.now)
    }

    fn down(&self) -> Down {
        let down = Down::again(None, &self.destination, "4.4.1 no answer", self.now);
        self.spool.remember_down(&down).unwrap();
        down
    }
}

// Time is paused: how long a state stays valid must not depend on the load of the machine.
#[tokio::test(start_paused = true)]
async fn the_first_connection_opens_the_way_for_the_others() {
    let scene = Scene::new();
    assert!(scene.has_room(0) && !scene.has_room(1));
    let mut first = scene.open(3);
    assert!(!scene.has_room(0));
    assert!(matches!(scene.ask(3), Gate::Wait));
    assert!(!first.answered(true));
    assert!(scene.has_room(1) && scene.has_room(2) && !scene.has_room(3));
    let _second = scene.open(3);
    let _third = scene.open(3);
    assert!(!scene.has_room(1));
    assert!(matches!(scene.ask(3), Gate::Wait));
}

#[tokio::test(start_paused = true)]
async fn the_next_one_may_try_after_the_first_gives_up() {
    let scene = Scene::new();
    drop(scene.open(3));
    assert!(scene.has_room(0) && !scene.has_room(1));
    let _next = scene.open(3);
}

#[tokio::test(start_paused = true)]
async fn a_down_destination_is_tried_only_for_a_retried_message() {
    let scene = Scene::new();
    let mut first = scene.open(3);
    let down = scene.down();
    first.failed(down.clone(), true);
    drop(first);
    assert!(scene.has_room(9));
    assert!(matches!(scene.ask(3), Gate::Down(there) if there == down));
    let before = scene.ask_again(3, Some(down.tried));
    assert!(matches!(before, Gate::Down(_)));
    let after = down.tried + jiff::SignedDuration::from_secs(1);
    let Gate::Open(slot) = scene.ask_again(3, Some(after)) else {
        panic!("not tried")
    };
    assert!(slot.is_probe() && slot.is_down());
}

#[tokio::test(start_paused = true)]
async fn only_one_process_probes() {
    let mut scene = Scene::new();
    scene.now = scene.down().probe;
    let mut probe = scene.open(3);
    assert!(probe.is_probe());
    assert!(matches!(scene.ask(3), Gate::Wait));
    let other = Arc::new(Connections::default());
    let asked = other.ask(&scene.spool, &scene.destination, 3, scene.now, None);
    assert!(matches!(asked, Gate::Probed));
    // The recorded down state is to be removed.
    assert!(probe.answered(true));
    assert!(scene.has_room(2));
}

#[tokio::test(start_paused = true)]
async fn others_may_have_all_the_connections() {
    let scene = Scene::new();
    let mine = scene.open(1);
    let other = Arc::new(Connections::default());
    let ask = || other.ask(&scene.spool, &scene.destination, 1, scene.now, None);
    assert!(matches!(ask(), Gate::Full));
    assert!(!other.has_room(&scene.destination, 1, 0, scene.now));
    mine.retire();
    tokio::time::advance(FRESH).await;
    assert!(other.has_room(&scene.destination, 1, 0, scene.now));
    assert!(matches!(ask(), Gate::Open(_)));
}

#[tokio::test(start_paused = true)]
async fn one_refusal_beside_open_connections_is_a_limit() {
    let scene = Scene::new();
    let mut first = scene.open(3);
    first.answered(true);
    let second = scene.open(3);
    assert!(!second.is_down());
    drop(second);
    assert!(matches!(scene.ask(3), Gate::Wait));
    first.set_idle(true);
    assert!(scene.has_room(0) && !scene.has_room(1));
}

#[tokio::test(start_paused = true)]
async fn a_destination_without_a_connection_is_asked_anew() {
    let scene = Scene::new();
    let mut first = scene.open(3);
    first.answered(true);
    drop(first);
    assert!(scene.has_room(0) && !scene.has_room(1));
}

#[tokio::test(start_paused = true)]
async fn an_unused_destination_is_forgotten() {
    let mut scene = Scene::new();
    let mut standing = scene.open(3);
    standing.answered(true);
    scene.destination.next_hop = "b.test".into();
    drop(scene.open(3));
    assert_eq!(scene.connections.count(), 2);
    scene.connections.tidy();
    assert_eq!(scene.connections.count(), 2);
    tokio::time::advance(KEPT * 2).await;
    scene.connections.tidy();
    assert_eq!(scene.connections.count(), 1);
    drop(standing);
    scene.connections.tidy();
    assert_eq!(scene.connections.count(), 0);
}
