//! The disks that a power cut may leave, taken from a device's log.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::device::{Event, Image};
use super::program::crowd::Random;
use super::work::Mark;

/// The time between two flushes. Whatever was written before the first is on the disk; of what
/// was written until the second is answered, anything may be.
pub struct Window {
    /// Events up to this one are durable.
    durable: usize,
    /// The writes that may be missing.
    writes: Vec<usize>,
    /// The power goes before this event.
    end: usize,
}

/// What of a window's writes reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    None,
    All,
    /// All but this one, by its place in the window.
    AllBut(usize),
    /// Every sector of it or not, as it comes.
    Random,
}

pub struct Cuts {
    events: Vec<Event<Mark>>,
    pub windows: Vec<Window>,
    /// Octets that a disk writes wholly or not at all.
    sector: usize,
    /// The image up to a durable event, from which the next is made.
    image: Image,
    applied: usize,
}

impl Cuts {
    /// Those from this event on.
    pub fn new(image: Image, events: Vec<Event<Mark>>, from: usize, sector: usize) -> Cuts {
        let mut windows = windows(&events);
        windows.retain(|window| window.durable >= from);
        Cuts {
            events,
            windows,
            sector,
            image,
            applied: 0,
        }
    }

    /// The same for a disk that takes no notice of flushes after the first of them.
    pub fn ignore_flushes(&mut self) {
        let first = self.windows[0].durable;
        for window in &mut self.windows {
            let is_write = |n: &usize| matches!(self.events[*n], Event::Write { .. });
            window.durable = first;
            window.writes = (first..window.end).filter(is_write).collect();
        }
    }

    /// The disk after a cut in this window. Windows have to be asked for in their order.
    pub fn image(&mut self, window: usize, subset: Subset, random: &mut Random) -> Image {
        let window = &self.windows[window];
        for event in &self.events[self.applied..window.durable] {
            if let Event::Write { offset, bytes } = event {
                self.image.write(*offset, bytes);
            }
        }
        self.applied = window.durable;
        let mut image = self.image.clone();
        for (place, number) in window.writes.iter().enumerate() {
            let Event::Write { offset, bytes } = &self.events[*number] else {
                continue;
            };
            match subset {
                Subset::None => {}
                Subset::AllBut(missing) if missing == place => {}
                Subset::All | Subset::AllBut(_) => image.write(*offset, bytes),
                Subset::Random => self.sectors(*offset, bytes, random, &mut image),
            }
        }
        image
    }

    /// Half of the writes whole or not at all, the other half sector by sector.
    fn sectors(&self, offset: u64, bytes: &Arc<[u8]>, random: &mut Random, image: &mut Image) {
        match random.pick(4) {
            0 => {}
            1 => image.write(offset, bytes),
            _ => {
                for part in parts(offset, bytes.len(), self.sector) {
                    if random.pick(2) == 0 {
                        image.write(offset + part.start as u64, &bytes[part]);
                    }
                }
            }
        }
    }

    /// What the test knew when the power went.
    pub fn known(&self, window: usize) -> impl Iterator<Item = &Mark> {
        let end = self.windows[window].end;
        self.events[..end].iter().filter_map(|event| match event {
            Event::Mark(mark) => Some(mark),
            _ => None,
        })
    }

    pub fn flushes(&self) -> usize {
        let is_flush = |event: &&Event<Mark>| matches!(event, Event::FlushEnds);
        self.events.iter().filter(is_flush).count()
    }

    /// How many writes may be missing.
    pub fn writes(&self, window: usize) -> usize {
        self.windows[window].writes.len()
    }
}

fn windows(events: &[Event<Mark>]) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut durable = 0;
    let mut begun = 0;
    for (n, event) in events.iter().enumerate() {
        match event {
            Event::FlushBegins => begun = n,
            Event::FlushEnds => {
                windows.push(window(events, durable..n));
                durable = begun;
            }
            _ => {}
        }
    }
    windows.push(window(events, durable..events.len()));
    windows
}

fn window(events: &[Event<Mark>], range: Range<usize>) -> Window {
    let is_write = |n: &usize| matches!(events[*n], Event::Write { .. });
    Window {
        durable: range.start,
        end: range.end,
        writes: range.filter(is_write).collect(),
    }
}

/// The parts of a write that lie in one sector each.
fn parts(offset: u64, size: usize, sector: usize) -> Vec<Range<usize>> {
    let first = sector - (offset % sector as u64) as usize;
    let mut ends: BTreeSet<usize> = (first..size).step_by(sector).collect();
    ends.insert(size);
    let mut start = 0;
    let mut parts = Vec::new();
    for end in ends {
        parts.push(start..end);
        start = end;
    }
    parts
}
