//! Takes apart what a fanotify group's descriptor gives to read. Pure; for any bytes it ends without a panic.
//!
//! The layout is that of `linux/fanotify.h`. Records are aligned to four bytes only, so every field is copied out.

use crate::watch::DirKey;
use crate::watch::handle::HANDLE_TAG;

/// `sizeof(struct fanotify_event_metadata)`.
const METADATA_LEN: usize = 24;
/// `sizeof(struct fanotify_event_info_header)`.
const INFO_HEADER_LEN: usize = 4;
/// File system id, handle length and handle type, before the handle's bytes.
const FID_HEAD_LEN: usize = 8 + 4 + 4;

/// Bytes that are no fanotify events: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The identity of an object as the kernel reports it: file system id and file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fid<'a> {
    fsid: &'a [u8],
    handle_type: &'a [u8],
    handle: &'a [u8],
}

impl Fid<'_> {
    /// As a key, equal to what `handle::dir_key` gives for the same object.
    pub(crate) fn key(&self) -> DirKey {
        DirKey([&[HANDLE_TAG][..], self.fsid, self.handle_type, self.handle].concat().into_boxed_slice())
    }
}

/// A name in a directory. Empty: the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) dir: Fid<'a>,
    pub(crate) name: &'a [u8],
}

/// One event, borrowed from the buffer it was read into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawEvent<'a> {
    /// `FAN_…` bits.
    pub(crate) mask: u64,
    /// The process that caused it; 0 where the kernel does not tell.
    pub(crate) pid: i32,
    /// Where it happened.
    pub(crate) entry: Option<Entry<'a>>,
    /// For a rename: where from.
    pub(crate) old: Option<Entry<'a>>,
    /// For a rename: where to.
    pub(crate) new: Option<Entry<'a>>,
    /// The object it happened to.
    pub(crate) object: Option<Fid<'a>>,
}

/// The events in `buffer`, in order; after a [`Malformed`] nothing more.
pub(crate) fn events(buffer: &[u8]) -> impl Iterator<Item = Result<RawEvent<'_>, Malformed>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        Some(match take_event(rest) {
            Ok((event, behind)) => {
                rest = behind;
                Ok(event)
            }
            Err(malformed) => {
                rest = &[];
                Err(malformed)
            }
        })
    })
}

fn take_event(bytes: &[u8]) -> Result<(RawEvent<'_>, &[u8]), Malformed> {
    const CUT: Malformed = Malformed("a fanotify event is cut short");
    let len = u32_at(bytes, 0).ok_or(CUT)? as usize;
    let version = *bytes.get(4).ok_or(CUT)?;
    let metadata_len = usize::from(u16_at(bytes, 6).ok_or(CUT)?);
    if version != libc::FANOTIFY_METADATA_VERSION {
        return Err(Malformed("the kernel speaks another version of fanotify"));
    }
    if metadata_len < METADATA_LEN || len < metadata_len || len > bytes.len() {
        return Err(Malformed("a fanotify event has an impossible length"));
    }
    let mut event =
        RawEvent { mask: u64_at(bytes, 8).ok_or(CUT)?, pid: i32_at(bytes, 20).ok_or(CUT)?, ..RawEvent::default() };
    let (event_bytes, behind) = bytes.split_at(len);
    let mut infos = &event_bytes[metadata_len..];
    while !infos.is_empty() {
        let info_len = usize::from(u16_at(infos, 2).ok_or(CUT)?);
        if info_len < INFO_HEADER_LEN || info_len > infos.len() {
            return Err(Malformed("a fanotify information record has an impossible length"));
        }
        let (info, next) = infos.split_at(info_len);
        take_info(info[0], &info[INFO_HEADER_LEN..], &mut event)?;
        infos = next;
    }
    Ok((event, behind))
}

fn take_info<'a>(kind: u8, body: &'a [u8], event: &mut RawEvent<'a>) -> Result<(), Malformed> {
    match kind {
        libc::FAN_EVENT_INFO_TYPE_FID => event.object = Some(take_fid(body)?.0),
        libc::FAN_EVENT_INFO_TYPE_DFID | libc::FAN_EVENT_INFO_TYPE_DFID_NAME => event.entry = Some(take_entry(body)?),
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => event.old = Some(take_entry(body)?),
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => event.new = Some(take_entry(body)?),
        // A later kernel may tell more than we asked for; its length says how to step over it.
        _ => {}
    }
    Ok(())
}

fn take_fid(body: &[u8]) -> Result<(Fid<'_>, &[u8]), Malformed> {
    const CUT: Malformed = Malformed("a fanotify file handle is cut short");
    let handle_len = u32_at(body, 8).ok_or(CUT)? as usize;
    let end = FID_HEAD_LEN.checked_add(handle_len).ok_or(CUT)?;
    let handle = body.get(FID_HEAD_LEN..end).ok_or(CUT)?;
    Ok((Fid { fsid: &body[..8], handle_type: &body[12..16], handle }, &body[end..]))
}

fn take_entry(body: &[u8]) -> Result<Entry<'_>, Malformed> {
    let (dir, name) = take_fid(body)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    // The kernel names a directory that is told of itself ".".
    Ok(Entry { dir, name: if name == b"." { b"" } else { name } })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fid_body(fsid: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = vec![fsid; 8];
        body.extend(u32::try_from(handle.len()).unwrap().to_ne_bytes());
        body.extend(7i32.to_ne_bytes());
        body.extend(handle);
        body.extend(name);
        body
    }

    fn info(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = (INFO_HEADER_LEN + body.len()).next_multiple_of(4);
        let mut info = vec![kind, 0];
        info.extend(u16::try_from(len).unwrap().to_ne_bytes());
        info.extend(body);
        info.resize(len, 0);
        info
    }

    fn event(mask: u64, pid: i32, infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let mut event = Vec::new();
        event.extend(u32::try_from(METADATA_LEN + infos.len()).unwrap().to_ne_bytes());
        event.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        event.extend(u16::try_from(METADATA_LEN).unwrap().to_ne_bytes());
        event.extend(mask.to_ne_bytes());
        event.extend((-1i32).to_ne_bytes());
        event.extend(pid.to_ne_bytes());
        event.extend(infos);
        event
    }

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(METADATA_LEN, size_of::<libc::fanotify_event_metadata>());
        assert_eq!(std::mem::offset_of!(libc::fanotify_event_metadata, mask), 8);
        assert_eq!(std::mem::offset_of!(libc::fanotify_event_metadata, pid), 20);
        assert_eq!(INFO_HEADER_LEN, size_of::<libc::fanotify_event_info_header>());
    }

    #[test]
    fn every_record_of_an_event_is_read() {
        let bytes = [
            event(
                libc::FAN_RENAME,
                42,
                &[
                    info(libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, &fid_body(1, b"0123456789ab", b"old\0")),
                    info(libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, &fid_body(1, b"cdef", b"new\0")),
                    info(200, b"of a later kernel"),
                    info(libc::FAN_EVENT_INFO_TYPE_FID, &fid_body(1, b"self", b"")),
                ],
            ),
            event(libc::FAN_ATTRIB, 0, &[info(libc::FAN_EVENT_INFO_TYPE_DFID_NAME, &fid_body(2, b"dir.", b".\0"))]),
        ]
        .concat();
        let events: Vec<_> = events(&bytes).map(Result::unwrap).collect();
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].mask, events[0].pid), (libc::FAN_RENAME, 42));
        assert_eq!(events[0].old.unwrap().name, b"old");
        assert_eq!(events[0].old.unwrap().dir.handle, b"0123456789ab");
        assert_eq!(events[0].new.unwrap().name, b"new");
        let key = [b"h\x01\x01\x01\x01\x01\x01\x01\x01", &7i32.to_ne_bytes()[..], b"self"].concat();
        assert_eq!(&*events[0].object.unwrap().key().0, &key[..]);
        assert_eq!(events[1].entry.unwrap().name, &b""[..]);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(events(&bytes).count() <= bytes.len());
        }

        #[test]
        fn any_damage_to_an_event_ends_without_a_panic(
            at in 0usize..120, byte: u8, cut in 0usize..120, handle in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = event(libc::FAN_CREATE, 1, &[
                info(libc::FAN_EVENT_INFO_TYPE_DFID_NAME, &fid_body(3, &handle, b"name\0")),
                info(libc::FAN_EVENT_INFO_TYPE_FID, &fid_body(3, &handle, b"")),
            ]);
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            bytes.truncate(cut);
            for event in events(&bytes).flatten() {
                prop_assert!(event.entry.is_none_or(|entry| entry.name.len() < 120));
            }
        }
    }
}
