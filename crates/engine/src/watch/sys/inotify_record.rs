//! Takes apart what an inotify descriptor gives to read. Pure; for any bytes it ends without a panic.

/// `sizeof(struct inotify_event)`, before the name.
const HEAD_LEN: usize = 16;

/// One event, borrowed from the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawEvent<'a> {
    /// Which watch; -1 for an overflow.
    pub(crate) wd: i32,
    /// `IN_…` bits.
    pub(crate) mask: u32,
    /// The same for both halves of a rename, else 0.
    pub(crate) cookie: u32,
    /// The name in the watched directory. Empty: the directory itself.
    pub(crate) name: &'a [u8],
}

/// The events in `buffer`, in order. `Err` ends it: the bytes from there on are cut short.
pub(crate) fn events(buffer: &[u8]) -> impl Iterator<Item = Result<RawEvent<'_>, &'static str>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_event(rest);
        rest = taken.map_or(&[], |(_, behind)| behind);
        Some(taken.map(|(event, _)| event).ok_or("an inotify event is cut short"))
    })
}

fn take_event(bytes: &[u8]) -> Option<(RawEvent<'_>, &[u8])> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied();
    let name_len = u32::from_ne_bytes(word(12)?) as usize;
    let end = HEAD_LEN.checked_add(name_len)?;
    let padded = bytes.get(HEAD_LEN..end)?;
    let event = RawEvent {
        wd: i32::from_ne_bytes(word(0)?),
        mask: u32::from_ne_bytes(word(4)?),
        cookie: u32::from_ne_bytes(word(8)?),
        name: padded.split(|byte| *byte == 0).next().unwrap_or_default(),
    };
    Some((event, &bytes[end..]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(wd: i32, mask: u32, cookie: u32, name: &[u8]) -> Vec<u8> {
        let mut padded = name.to_vec();
        if !name.is_empty() {
            padded.resize((name.len() + 1).next_multiple_of(HEAD_LEN), 0);
        }
        let len = u32::try_from(padded.len()).unwrap();
        [&wd.to_ne_bytes()[..], &mask.to_ne_bytes(), &cookie.to_ne_bytes(), &len.to_ne_bytes(), &padded].concat()
    }

    #[test]
    fn names_lose_their_padding_and_nothing_else() {
        assert_eq!(HEAD_LEN, size_of::<libc::inotify_event>());
        let bytes = [event(1, libc::IN_CREATE, 0, b"\xff \n"), event(-1, libc::IN_Q_OVERFLOW, 7, b"")].concat();
        let events: Vec<_> = events(&bytes).map(Result::unwrap).collect();
        assert_eq!(events[0], RawEvent { wd: 1, mask: libc::IN_CREATE, cookie: 0, name: b"\xff \n" });
        assert_eq!(events[1], RawEvent { wd: -1, mask: libc::IN_Q_OVERFLOW, cookie: 7, name: b"" });
    }

    #[test]
    fn an_event_that_is_cut_short_is_an_error() {
        let bytes = event(1, libc::IN_CREATE, 0, b"name");
        assert!(events(&bytes[..bytes.len() - 1]).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(events(&bytes).count() <= bytes.len());
        }

        #[test]
        fn events_come_back_as_they_were(
            each in prop::collection::vec((any::<i32>(), any::<u32>(), any::<u32>(), "[a-z\u{e9}]{0,40}"), 0..8),
        ) {
            let bytes: Vec<u8> = each.iter().flat_map(|(wd, mask, cookie, name)| {
                event(*wd, *mask, *cookie, name.as_bytes())
            }).collect();
            let back: Vec<_> = events(&bytes).map(Result::unwrap).collect();
            prop_assert_eq!(back.len(), each.len());
            for (event, (wd, mask, cookie, name)) in back.iter().zip(&each) {
                prop_assert_eq!((event.wd, event.mask, event.cookie, event.name), (*wd, *mask, *cookie, name.as_bytes()));
            }
        }
    }
}
