//! Each thing that can go wrong with staging files and archives, by itself.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keepwatch_pack::{
    ArchiveName, Base, Limits, Method, NameError, OnDrop, Options, PackError, Packer, STAGING_DIR, ScavengeOptions,
    Scavenger,
};
use support::{
    assert_clean, assert_program_accepts, members, packer, put, scavenge, scavenge_with, stage, staged, unzipped,
};

/// The only staging file.
fn only_staged(base: &Path) -> PathBuf {
    let names = staged(base, "");
    assert_eq!(names.len(), 1, "{names:?}");
    base.join(STAGING_DIR).join(&names[0])
}

fn read(base: &Path, archive: &str, member: &str) -> Vec<u8> {
    let archive = ArchiveName::parse(archive.as_bytes()).unwrap();
    let mut content = Vec::new();
    let mut take = |piece: &[u8]| {
        content.extend_from_slice(piece);
        Ok(())
    };
    Base::open(base).unwrap().read(&archive, member.as_bytes(), &mut take).unwrap();
    content
}

#[test]
fn what_is_finished_is_in_its_archive_for_every_reader() {
    let base = support::base();
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    stage(
        base.path(),
        &[("ar.zip/a/b", b"hello"), ("ar.zip/empty", b""), ("d e/o.zip/x", b"more"), ("ar.zip/large", &large)],
    );
    let report = scavenge(base.path());
    assert_eq!((report.members, report.known, report.quarantined.len()), (4, 0, 0));
    assert!(Scavenger::open(base.path(), ScavengeOptions::default()).unwrap().scavenge().unwrap().is_idle());
    let expected =
        [("ar.zip/a/b", &b"hello"[..]), ("ar.zip/empty", b""), ("d e/o.zip/x", b"more"), ("ar.zip/large", &large)];
    assert_eq!(unzipped(base.path()), members(expected));
    assert_clean(base.path());
    assert_program_accepts("unzip", &["-tqq"], &base.path().join("ar.zip"));
    assert_program_accepts("7zz", &["t"], &base.path().join("ar.zip"));
    assert_program_accepts("zipdetails", &[], &base.path().join("ar.zip"));
}

#[test]
fn a_handle_is_a_file() {
    for spill_bytes in [10, 1 << 20] {
        let base = support::base();
        let packer = Packer::open(base.path(), Options { spill_bytes, ..Options::default() }).unwrap();
        let mut handle = packer.create("ar.zip/x").unwrap();
        handle.write_all(b"0123456789abcdef").unwrap();
        handle.seek(SeekFrom::Start(4)).unwrap();
        handle.write_all(b"----").unwrap();
        handle.seek(SeekFrom::End(4)).unwrap();
        handle.write_all(b"end").unwrap();
        handle.rewind().unwrap();
        let mut content = Vec::new();
        handle.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"0123----89abcdef\0\0\0\0end");
        handle.set_len(30).unwrap();
        handle.finish().unwrap();
        packer.close().unwrap();
        scavenge(base.path());
        assert_eq!(read(base.path(), "ar.zip", "x"), b"0123----89abcdef\0\0\0\0end\0\0\0\0\0\0\0");
    }
}

#[test]
fn a_dropped_handle_leaves_nothing_unless_asked() {
    let base = support::base();
    for spill_bytes in [10, 1 << 20] {
        for (on_drop, count) in [(OnDrop::Discard, 0), (OnDrop::Store, 1)] {
            let options = Options { spill_bytes, on_drop, ..Options::default() };
            let packer = Packer::open(base.path(), options).unwrap();
            let mut handle = packer.create(format!("ar.zip/{spill_bytes}")).unwrap();
            handle.write_all(b"some twenty bytes of it").unwrap();
            drop(handle);
            packer.close().unwrap();
            assert_eq!(scavenge(base.path()).members, count);
            assert_clean(base.path());
        }
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused_at_the_worker() {
    let base = support::base();
    let packer = packer(base.path());
    for (name, error) in [
        ("x/y", NameError::NoArchive),
        ("ar.zip", NameError::NoMember),
        ("ar.zip/../x", NameError::Parent),
        ("../ar.zip/x", NameError::Parent),
        ("/ar.zip/x", NameError::Absolute),
        ("", NameError::Empty),
    ] {
        assert!(matches!(packer.create(name), Err(PackError::Name { source, .. }) if source == error), "{name}");
    }
    let dir = base.path().join("dir");
    fs::create_dir(&dir).unwrap();
    assert!(matches!(packer.pickup(&dir, "ar.zip/x"), Err(PackError::NotAFile { .. })));
    std::os::unix::fs::symlink("/etc/passwd", base.path().join("link")).unwrap();
    assert!(matches!(packer.pickup(&base.path().join("link"), "ar.zip/x"), Err(PackError::NotAFile { .. })));
    let gone = packer.pickup(&base.path().join("gone"), "ar.zip/x").unwrap_err();
    assert_eq!(gone.io().unwrap().kind(), std::io::ErrorKind::NotFound);
    assert!(scavenge(base.path()).is_idle());
}

#[test]
fn a_file_that_is_picked_up_keeps_mode_and_time_and_goes() {
    for size in [100, 3 << 20] {
        let base = support::base();
        let source = base.path().join("finished");
        fs::write(&source, vec![b'x'; size]).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o750)).unwrap();
        let touch = Command::new("touch").args(["-d", "@1234567890"]).arg(&source).status().unwrap();
        assert!(touch.success());
        let packer = packer(base.path());
        packer.pickup(&source, "ar.zip/x").unwrap();
        assert!(!source.exists());
        packer.close().unwrap();
        scavenge(base.path());
        let out = base.path().join("out");
        let status = Command::new("unzip").arg("-q").arg(base.path().join("ar.zip")).arg("-d").arg(&out).status();
        assert!(status.unwrap().success());
        let meta = fs::metadata(out.join("x")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.size()), (0o750, 1_234_567_890, size as u64));
    }
}

#[test]
fn any_name_and_any_time_survive() {
    let base = support::base();
    let packer = packer(base.path());
    let names: [&[u8]; 4] =
        [b"ar.zip/plain", "ar.zip/gr\u{fc}n/\u{6570}".as_bytes(), b"ar.zip/raw\xff\xfe", b"ar.zip/new\nline \"'\\"];
    for (name, secs) in names.iter().zip([-86_400, 1, 5_000_000_000, 253_402_300_799]) {
        let mut handle = packer.create(name).unwrap();
        handle.write_all(name).unwrap();
        handle.set_mtime(secs, 0);
        handle.finish().unwrap();
    }
    packer.close().unwrap();
    scavenge(base.path());
    assert!(unzipped(base.path()).len() == 4);
    let mut seen = Vec::new();
    let archive = ArchiveName::parse(b"ar.zip").unwrap();
    let listed = Base::open(base.path()).unwrap().list(&archive, &mut |member| {
        seen.push((member.name.clone(), member.mtime_secs));
        Ok(())
    });
    assert!(listed.unwrap());
    assert_eq!(seen[0], (b"plain".to_vec(), -86_400));
    assert_eq!(seen[2], (b"raw\xff\xfe".to_vec(), 5_000_000_000));
    assert_eq!(seen[3].1, 253_402_300_799);
}

#[test]
fn a_file_that_was_torn_off_gives_up_every_complete_member() {
    let base = support::base();
    stage(base.path(), &[("ar.zip/one", b"first"), ("ar.zip/two", &[7; 1000]), ("ar.zip/three", b"third")]);
    let whole = fs::read(only_staged(base.path())).unwrap();
    let path = only_staged(base.path());
    // Every length: within data, within a header, within the list of members.
    for len in (0..whole.len()).step_by(7) {
        let base = support::fast_base();
        fs::create_dir_all(base.path().join(STAGING_DIR)).unwrap();
        fs::write(base.path().join(STAGING_DIR).join(path.file_name().unwrap()), &whole[..len]).unwrap();
        let report = scavenge(base.path());
        let list_at = whole.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
        let members = if len >= list_at { 3 } else { report.members };
        assert_eq!(report.members, members, "of {len} bytes");
        let is_between = report.quarantined.is_empty();
        assert!(is_between || len < list_at, "of {len} bytes: {:?}", report.quarantined);
        assert_clean(base.path());
        assert_eq!(staged(base.path(), "quarantine").len(), if is_between { 0 } else { 2 });
    }
}

#[test]
fn damage_in_the_middle_costs_one_member() {
    let base = support::base();
    stage(base.path(), &[("ar.zip/one", b"first"), ("ar.zip/two", b"second"), ("ar.zip/three", b"third")]);
    let path = only_staged(base.path());
    let whole = fs::read(&path).unwrap();
    let second = whole.windows(6).position(|bytes| bytes == b"second").unwrap();
    // In its data, in its header's name, and in the signature of its header.
    let header = whole[..second].windows(4).rposition(|four| four == b"PK\x03\x04").unwrap();
    for at in [second, second - 50, header + 32, header, header + 20] {
        let base = support::base();
        fs::create_dir_all(base.path().join(STAGING_DIR)).unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(base.path().join(STAGING_DIR).join(path.file_name().unwrap()), bytes).unwrap();
        let report = scavenge(base.path());
        assert_eq!((report.members, report.quarantined.len()), (2, 1), "byte {at}: {report:?}");
        assert_eq!(unzipped(base.path()), members([("ar.zip/one", &b"first"[..]), ("ar.zip/three", b"third")]));
    }
}

#[test]
fn the_same_name_twice() {
    let base = support::base();
    for content in ["first", "first", "second", "third", "second"] {
        stage(base.path(), &[("ar.zip/x", content.as_bytes())]);
    }
    let report = scavenge(base.path());
    assert_eq!((report.members, report.known, report.renamed_count), (3, 2, 2));
    stage(base.path(), &[("ar.zip/x", b"third"), ("ar.zip/x", b"fourth")]);
    assert_eq!(scavenge(base.path()).renamed, [("ar.zip".to_owned(), "x~4".to_owned())]);
    let expected = [("ar.zip/x", "first"), ("ar.zip/x~2", "second"), ("ar.zip/x~3", "third"), ("ar.zip/x~4", "fourth")];
    assert_eq!(unzipped(base.path()), members(expected.map(|(name, content)| (name, content.as_bytes()))));
}

#[test]
fn compressed_and_plain_are_the_same_member() {
    let base = support::base();
    let content = b"again and again ".repeat(200_000);
    for method in [Method::Deflated(6), Method::Stored, Method::Deflated(1)] {
        let packer = Packer::open(base.path(), Options { method, ..Options::default() }).unwrap();
        put(&packer, "ar.zip/large", &content);
        put(&packer, "ar.zip/small", &content[..1000]);
        packer.close().unwrap();
        scavenge(base.path());
    }
    let expected = [("ar.zip/large", &content[..]), ("ar.zip/small", &content[..1000])];
    assert_eq!(unzipped(base.path()), members(expected));
    assert!(fs::metadata(base.path().join("ar.zip")).unwrap().len() < 100_000);
}

#[test]
fn what_is_not_the_packers_stops_nobody_and_stays() {
    let base = support::base();
    stage(base.path(), &[("ar.zip/x", b"good")]);
    let dir = base.path().join(STAGING_DIR);
    fs::write(dir.join("stray.zip"), b"PK\x05\x06").unwrap();
    fs::write(dir.join("empty.closed"), b"").unwrap();
    fs::write(dir.join("garbage.closed"), vec![b'g'; 100_000]).unwrap();
    fs::create_dir(dir.join("directory.closed")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link.closed")).unwrap();
    let made = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); z.writestr('ar.zip/foreign', 'f'); z.writestr('../evil', 'e'); z.close()";
    let status = Command::new("python3").args(["-c", made]).arg(dir.join("foreign.closed")).status().unwrap();
    assert!(status.success());
    let report = scavenge(base.path());
    assert_eq!((report.members, report.quarantined.len()), (2, 2), "{:?}", report.quarantined);
    assert_eq!(unzipped(base.path()), members([("ar.zip/x", &b"good"[..]), ("ar.zip/foreign", b"f")]));
    assert!(dir.join("stray.zip").exists() && dir.join("directory.closed").is_dir());
    assert!(fs::symlink_metadata(dir.join("link.closed")).is_ok());
    assert_eq!(fs::read(dir.join("quarantine/garbage.closed")).unwrap(), vec![b'g'; 100_000]);
    let status = Base::open(base.path()).unwrap().status().unwrap();
    assert!(status.needs_attention() && status.strays.contains(&"stray.zip".to_owned()));
    assert!(status.quarantined.iter().any(|(name, why)| name == "foreign.closed" && why.contains("..")));
}

#[test]
fn an_archive_that_was_there_is_taken_in_and_garbage_is_left_alone() {
    let base = support::base();
    let made = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED); z.writestr('old', 'o' * 1000); z.writestr('x', 'same'); z.close()";
    let status = Command::new("python3").args(["-c", made]).arg(base.path().join("ar.zip")).status().unwrap();
    assert!(status.success());
    fs::write(base.path().join("bad.zip"), b"this is no archive at all").unwrap();
    stage(base.path(), &[("ar.zip/x", b"same"), ("ar.zip/new", b"n"), ("bad.zip/new", b"b")]);
    let report = scavenge(base.path());
    assert_eq!((report.members, report.known), (2, 1));
    assert_eq!(fs::read(base.path().join("bad.zip")).unwrap(), b"this is no archive at all");
    assert_eq!(read(base.path(), "bad.zip", "new"), b"b");
    fs::rename(base.path().join("bad.zip"), base.path().join("bad.txt")).unwrap();
    let old = [b'o'; 1000];
    let expected = [("ar.zip/old", &old[..]), ("ar.zip/x", b"same"), ("ar.zip/new", b"n"), ("bad.zip/new", b"b")];
    assert_eq!(unzipped(base.path()), members(expected));
    // Changed by another program between two rounds.
    let status = Command::new("python3")
        .args([
            "-c",
            "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'a'); z.writestr('by hand', 'h'); z.close()",
        ])
        .arg(base.path().join("ar.zip"))
        .status();
    assert!(status.unwrap().success());
    stage(base.path(), &[("ar.zip/newer", b"m")]);
    scavenge(base.path());
    assert_eq!(read(base.path(), "ar.zip", "by hand"), b"h");
    assert_eq!(read(base.path(), "ar.zip", "newer"), b"m");
}

#[test]
fn an_archive_that_was_taken_away_begins_anew() {
    let base = support::base();
    stage(base.path(), &[("ar.zip/x", b"1")]);
    scavenge(base.path());
    fs::rename(base.path().join("ar.zip"), base.path().join("shelved")).unwrap();
    stage(base.path(), &[("ar.zip/y", b"2")]);
    scavenge(base.path());
    assert_eq!(unzipped(base.path()), members([("ar.zip/y", &b"2"[..])]));
    assert!(base.path().join("ar.zip").exists());
}

#[test]
fn without_its_own_directory_the_archives_are_known_by_themselves() {
    let base = support::base();
    let limits = Limits { members: 2, ..Limits::default() };
    let options = ScavengeOptions { limits, ..ScavengeOptions::default() };
    stage(base.path(), &[("ar.zip/1", b"1"), ("ar.zip/2", b"2"), ("ar.zip/3", b"3")]);
    scavenge_with(base.path(), options);
    fs::remove_dir_all(base.path().join(STAGING_DIR)).unwrap();
    stage(base.path(), &[("ar.zip/1", b"1"), ("ar.zip/3", b"3"), ("ar.zip/4", b"4")]);
    assert_eq!(scavenge_with(base.path(), options).known, 2);
    let all = ["1", "2", "3", "4"].map(|name| (format!("ar.zip/{name}"), name));
    assert_eq!(unzipped(base.path()), members(all.iter().map(|(name, content)| (name.as_str(), content.as_bytes()))));
}

#[test]
fn an_archive_rolls_over_and_no_part_is_over_its_limits() {
    let base = support::base();
    let limits = Limits { members: 100, bytes: 60_000, small_bytes: 20_000, ratio: 2 };
    let options = ScavengeOptions { limits, ..ScavengeOptions::default() };
    let mut expected = Vec::new();
    for round in 0..40 {
        let packer = packer(base.path());
        for member in 0..=(round * 7 % 30) {
            let name = format!("ar.zip/{round}/{member}");
            put(&packer, &name, name.repeat(20).as_bytes());
            expected.push(name);
        }
        packer.close().unwrap();
        scavenge_with(base.path(), options);
    }
    let found = unzipped(base.path());
    assert_eq!(found.len(), expected.len());
    for name in &expected {
        assert_eq!(found[name.as_bytes()], name.repeat(20).as_bytes());
        let member = name.strip_prefix("ar.zip/").unwrap();
        assert_eq!(read(base.path(), "ar.zip", member), name.repeat(20).as_bytes());
    }
    let status = Base::open(base.path()).unwrap().status().unwrap();
    let parts = &status.archives[0].parts;
    assert!(parts.len() > 5, "{parts:?}");
    assert!(parts.iter().all(|part| part.members <= 100 && part.bytes <= 75_000), "{parts:?}");
    assert_eq!(parts[0].path, Path::new("ar.zip"));
    let on_disk = fs::read_dir(base.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
    assert_eq!(on_disk, parts.len());
    assert_clean(base.path());
}

#[test]
fn a_part_and_an_archive_of_the_same_name_do_not_meet() {
    let base = support::base();
    let limits = Limits { members: 1, ..Limits::default() };
    let options = ScavengeOptions { limits, ..ScavengeOptions::default() };
    stage(base.path(), &[("ar.zip/1", b"1"), ("ar.zip/2", b"2"), ("ar-1.zip/own", b"o")]);
    scavenge_with(base.path(), options);
    stage(base.path(), &[("ar.zip/3", b"3"), ("ar-1.zip/more", b"m")]);
    scavenge_with(base.path(), options);
    let expected =
        [("ar.zip/1", "1"), ("ar.zip/2", "2"), ("ar.zip/3", "3"), ("ar-1.zip/own", "o"), ("ar-1.zip/more", "m")];
    assert_eq!(unzipped(base.path()), members(expected.map(|(name, content)| (name, content.as_bytes()))));
    assert_eq!(read(base.path(), "ar-1.zip", "own"), b"o");
    assert_eq!(read(base.path(), "ar.zip", "2"), b"2");
}

#[test]
fn a_writer_that_lives_is_left_alone_and_loses_nothing_when_it_is_not() {
    let base = support::base();
    let packer = packer(base.path());
    put(&packer, "ar.zip/1", b"1");
    let report = scavenge(base.path());
    assert_eq!((report.claimed, report.left_open), (0, 1));
    let flush = ScavengeOptions { flush: true, ..ScavengeOptions::default() };
    assert_eq!(scavenge_with(base.path(), flush).members, 1);
    put(&packer, "ar.zip/2", b"2");
    // By the clock of the file system, with a writer that cannot be asked.
    let stale = ScavengeOptions { stale_after: Some(Duration::from_nanos(1)), ..ScavengeOptions::default() };
    let mut count = 0;
    while count == 0 {
        count = scavenge_with(base.path(), stale).members;
    }
    put(&packer, "ar.zip/3", b"3");
    packer.close().unwrap();
    scavenge(base.path());
    let expected = [("ar.zip/1", &b"1"[..]), ("ar.zip/2", b"2"), ("ar.zip/3", b"3")];
    assert_eq!(unzipped(base.path()), members(expected));
}

#[test]
fn a_clock_that_is_a_day_off_takes_nothing_from_anybody() {
    let base = support::base();
    let packer = packer(base.path());
    put(&packer, "ar.zip/1", b"1");
    let open = only_staged(base.path());
    for when in ["now + 1 day", "now - 30 minutes"] {
        let status = Command::new("touch").args(["-d", when]).arg(&open).status().unwrap();
        assert!(status.success());
        assert_eq!(scavenge(base.path()).left_open, 1, "{when}");
    }
    packer.close().unwrap();
    assert_eq!(scavenge(base.path()).members, 1);
}

#[test]
fn what_is_staged_is_rotated_though_nobody_writes() {
    let base = support::base();
    let options = Options { rotation: Duration::from_millis(50), ..Options::default() };
    let packer = Packer::open(base.path(), options).unwrap();
    put(&packer, "ar.zip/1", b"1");
    let start = std::time::Instant::now();
    while only_staged(base.path()).extension().is_none_or(|ending| ending != "closed") {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert_eq!(scavenge(base.path()).members, 1);
    put(&packer, "ar.zip/2", b"2");
    packer.close().unwrap();
    assert_eq!(scavenge(base.path()).members, 1);
}

#[test]
fn an_index_is_made_anew_and_never_believed_blindly() {
    let base = support::base();
    let packer = packer(base.path());
    for member in 0..6000 {
        put(&packer, format!("ar.zip/m{member}"), member.to_string().as_bytes());
    }
    packer.close().unwrap();
    scavenge(base.path());
    let index = base.path().join(".ar.zip.index");
    let whole = fs::read(&index).unwrap();
    let check = || {
        for member in (0..6000).step_by(97) {
            assert_eq!(read(base.path(), "ar.zip", &format!("m{member}")), member.to_string().as_bytes());
        }
        stage(base.path(), &[("ar.zip/m17", b"17")]);
        assert_eq!(scavenge(base.path()).known, 1);
    };
    check();
    for at in [0, 20, 70, 5000, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&index, bytes).unwrap();
        check();
    }
    fs::remove_file(&index).unwrap();
    check();
    assert_eq!(fs::read(&index).unwrap(), whole, "it was made anew");
}

#[test]
fn verify_finds_a_flipped_bit_wherever_it_is() {
    let base = support::base();
    stage(base.path(), &[("ar.zip/one", b"first"), ("ar.zip/two", &[7; 300])]);
    scavenge(base.path());
    let path = base.path().join("ar.zip");
    let whole = fs::read(&path).unwrap();
    let archive = ArchiveName::parse(b"ar.zip").unwrap();
    let findings = || Base::open(base.path()).unwrap().verify(&archive, &mut |_| {}).unwrap().findings;
    assert_eq!(findings(), 0);
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, bytes).unwrap();
        // Without the generation it would be taken for a part that somebody changed.
        assert!(findings() > 0 || !fs::read(&path).unwrap().starts_with(&whole[..at + 1]), "byte {at}");
    }
}

#[test]
fn nothing_is_followed_out_of_the_base() {
    let base = support::base();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), base.path().join("sub")).unwrap();
    stage(base.path(), &[("sub/ar.zip/x", b"1"), ("ar.zip/x", b"2")]);
    let report = Scavenger::open(base.path(), ScavengeOptions::default()).unwrap().scavenge().unwrap();
    assert!(report.members == 1 && !report.errors.is_empty(), "{report:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(read(base.path(), "ar.zip", "x"), b"2");
    // What could not be packed waits for the link to go.
    fs::remove_file(base.path().join("sub")).unwrap();
    scavenge(base.path());
    assert_eq!(read(base.path(), "sub/ar.zip", "x"), b"1");
    assert!(base.path().join("sub/ar.zip").is_file());
    assert!(scavenge(base.path()).is_idle());
}

#[test]
fn more_than_65535_members() {
    let base = support::fast_base();
    let packer = packer(base.path());
    let count = 70_000;
    for member in 0..count {
        put(&packer, format!("ar.zip/{member}"), b"x");
    }
    packer.close().unwrap();
    assert_eq!(scavenge(base.path()).members, count);
    stage(base.path(), &[("ar.zip/one more", b"y")]);
    assert_eq!(scavenge(base.path()).members, 1);
    assert_program_accepts("unzip", &["-tqq"], &base.path().join("ar.zip"));
    let listed = unzipped(base.path());
    assert_eq!((listed.len() as u64, &listed[&b"ar.zip/one more"[..]][..]), (count + 1, &b"y"[..]));
}
