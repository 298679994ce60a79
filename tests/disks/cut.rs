//! The possible disks after a power cut, derived from a device's log.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::device::{Event, Image};
use super::program::crowd::Random;
use super::work::Mark;

/// The time between two flushes. Writes before the first are on the disk. Any of the writes until the reply
/// to the second may be.
pub struct Window {
    /// Events up to this one are durable.
    durable: usize,
    /// The writes that may be missing.
    writes: Vec<usize>,
    /// The power is cut before this event.
    end: usize,
}

/// Which of a window's writes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    None,
    All,
    /// All but one, given by its index in the window.
    AllBut(usize),
    /// A random choice of sectors.
    Random,
}

pub struct Cuts {
    events: Vec<Event<Mark>>,
    pub windows: Vec<Window>,
    /// Octets that a disk writes atomically.
    sector: usize,
    /// The image up to a durable event, from which the next image is built.
    image: Image,
    applied: usize,
}

impl Cuts {
    /// The windows from this event on.
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

    /// Treats the disk as one that ignores every flush after the first.
    pub fn ignore_flushes(&mut self) {
        let first = self.windows[0].durable;
        for window in &mut self.windows {
            let is_write = |n: &usize| matches!(self.events[*n], Event::Write { .. });
            window.durable = first;
            window.writes = (first..window.end).filter(is_write).collect();
        }
    }

    /// Returns the disk after a cut in this window. Windows must be requested in order.
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

    /// Writes half of the writes whole or not at all, the other half sector by sector.
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

    /// What the test knew at the time of the cut.
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

/// The ranges of a write, split at sector boundaries.
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
