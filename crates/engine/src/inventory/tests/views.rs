//! The views for people with the sqlite3 shell.

use super::kit::*;
use crate::model::Facts;

fn rows(kit: &Kit, sql: &str) -> Vec<String> {
    let view = kit.view();
    let mut find = view.db.prepare(sql).unwrap();
    let rows = find.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn originals_has_a_readable_row_for_each_name() {
    let old = Facts { mtime_ns: -1, ..file(3, 10) };
    let kit = Kit::with(vec![create("d", dir(2)), create("d/a", old.clone()), settled("d/a", &old)]);
    let sql = "SELECT concat_ws('|', host, root, path, type, size, mtime, inode, mode, owner, ifnull(sha256, '-'), first_seen, \
               last_change, settled) FROM originals ORDER BY path";
    let found = rows(&kit, sql);
    assert_eq!(
        found[1],
        "preserve-1|r|d/a|file|10|1969-12-31T23:59:59.999999999Z|3|0640|1000:100|-|2027-01-15T08:00:03.000000000Z|\
         2027-01-15T08:00:03.000000000Z|1"
    );
    assert!(found[0].starts_with("preserve-1|r|d|dir|"), "{}", found[0]);
    assert_eq!(found.len(), 2);
}

#[test]
fn file_changes_tells_the_path_as_it_was_then() {
    let kit = Kit::with(vec![
        create("d", dir(2)),
        create("d/e/a", file(3, 1)),
        rename("d", "f", None),
        rename("f/e/a", "f/b", Some(file(3, 1))),
        delete("f"),
        delete("never/was"),
        delete(""),
    ]);
    let sql = "SELECT concat_ws('|', seq, root, change, ifnull(old_path, '-'), path, ifnull(type, '-'), via) FROM file_changes \
               ORDER BY seq";
    assert_eq!(
        rows(&kit, sql),
        [
            "2|r|create|-|d|dir|fanotify",
            "3|r|create|-|d/e/a|file|fanotify",
            "4|r|move|d|f|-|fanotify",
            "5|r|move|f/e/a|f/b|file|fanotify",
            "6|r|delete|-|f|-|fanotify",
            "7|r|delete|-|never/was|-|fanotify",
            "8|r|delete|-||-|fanotify",
        ]
    );
}
