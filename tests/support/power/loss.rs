//! What a disk holds after the power went.

use fastrand::Rng;

use super::image::Image;
use super::recorder::{Event, Record};

/// What a disk writes as a whole, in bytes; the loop device announces it as its sector.
pub const SECTOR: usize = 4096;
/// A lying disk has forgotten up to so many flushes.
const FORGOTTEN_FLUSHES_MAX: usize = 60;

/// What became of the writes since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// None is on the disk.
    Lost,
    /// All are.
    Kept,
    /// Some are, whatever came before or after them: disks reorder.
    Some,
    /// Of each, some sectors are.
    Torn,
    /// And some flushes before the last one were not done although they were reported: a disk that
    /// lies, for which there are no guarantees.
    Lied,
}

impl Fate {
    /// One that an honest disk may bring.
    pub fn any(random: &mut Rng) -> Self {
        [Self::Lost, Self::Kept, Self::Some, Self::Torn][random.usize(..4)]
    }
}

/// A record played forward, from one point to a later one.
pub struct Playback<'a> {
    record: &'a Record,
    /// Everything before the event `flushed`.
    disk: Image,
    flushed: usize,
}

impl<'a> Playback<'a> {
    /// From the beginning.
    pub fn new(record: &'a Record) -> Self {
        Self {
            record,
            disk: record.before.clone(),
            flushed: 0,
        }
    }

    /// The disk after the power went when `point` events had been: and how many writes were not
    /// flushed then. Points only grow.
    pub fn lose_power(&mut self, point: usize, fate: Fate, random: &mut Rng) -> (Image, usize) {
        let seen = &self.record.events[..point];
        let is_flush = |event: &Event| matches!(event, Event::Flush);
        let last = match fate {
            Fate::Lied => {
                let skipped = random.usize(1..=FORGOTTEN_FLUSHES_MAX);
                let flushes = seen.iter().enumerate().rev();
                let mut flushes = flushes.filter(|(_, event)| is_flush(event));
                flushes.nth(skipped).map(|(at, _)| at)
            }
            _ => seen.iter().rposition(is_flush),
        };
        // A lying disk may have forgotten more now than at an earlier point.
        let last = last.unwrap_or(0).max(self.flushed);
        for event in &seen[self.flushed..last] {
            event.apply(&mut self.disk);
        }
        self.flushed = last;
        let pending = &seen[last..];
        let mut disk = self.disk.clone();
        for event in pending {
            match fate {
                Fate::Lost | Fate::Lied => {}
                Fate::Kept => event.apply(&mut disk),
                Fate::Some if random.bool() => event.apply(&mut disk),
                Fate::Some => {}
                Fate::Torn => tear(event, &mut disk, random),
            }
        }
        let unflushed = pending.iter().filter(|e| !is_flush(e)).count();
        (disk, unflushed)
    }
}

fn tear(event: &Event, disk: &mut Image, random: &mut Rng) {
    let Event::Write(offset, data) = event else {
        if random.bool() {
            event.apply(disk);
        }
        return;
    };
    let mut at = 0;
    while at < data.len() {
        // Sectors are where the disk has them, not where the write begins.
        let sector = SECTOR - (offset + at) % SECTOR;
        let piece = &data[at..(at + sector).min(data.len())];
        if random.bool() {
            disk.write(offset + at, piece);
        }
        at += piece.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let write = |at: usize, byte| Event::Write(at * SECTOR, vec![byte; SECTOR * 2].into());
        Record {
            before: Image::new(8 * SECTOR),
            events: vec![write(0, 1), Event::Flush, write(2, 2), write(4, 3)],
        }
    }

    fn sectors(disk: &Image) -> Vec<u8> {
        (0..8).map(|n| disk.read(n * SECTOR, 1)[0]).collect()
    }

    #[test]
    fn what_was_flushed_stays_whatever_becomes_of_the_rest() {
        let record = record();
        let mut random = Rng::with_seed(1);
        for _ in 0..100 {
            let fate = Fate::any(&mut random);
            let mut playback = Playback::new(&record);
            let (disk, unflushed) = playback.lose_power(4, fate, &mut random);
            assert_eq!(sectors(&disk)[..2], [1, 1], "{fate:?}");
            assert_eq!(unflushed, 2);
        }
    }

    #[test]
    fn each_fate_leaves_what_it_says() {
        let record = record();
        let random = &mut Rng::with_seed(1);
        let left = |point, fate, random: &mut Rng| {
            let mut playback = Playback::new(&record);
            sectors(&playback.lose_power(point, fate, random).0)
        };
        assert_eq!(left(4, Fate::Lost, random), [1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(left(4, Fate::Kept, random), [1, 1, 2, 2, 3, 3, 0, 0]);
        assert_eq!(left(3, Fate::Kept, random), [1, 1, 2, 2, 0, 0, 0, 0]);
        assert_eq!(left(1, Fate::Lost, random), [0; 8]);
        let torn: Vec<_> = (0..20).map(|_| left(4, Fate::Torn, random)).collect();
        assert!(torn.iter().any(|s| s[2] != s[3]), "{torn:?}");
        let some: Vec<_> = (0..20).map(|_| left(4, Fate::Some, random)).collect();
        assert!(some.iter().all(|s| s[2] == s[3] && s[4] == s[5]));
        assert!(some.iter().any(|s| s[2] == 0 && s[4] == 3), "{some:?}");
    }

    #[test]
    fn a_lying_disk_may_have_forgotten_what_was_flushed() {
        let record = record();
        let mut playback = Playback::new(&record);
        let (disk, _) = playback.lose_power(4, Fate::Lied, &mut Rng::with_seed(1));
        assert_eq!(sectors(&disk), [0; 8]);
    }
}
