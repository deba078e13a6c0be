//! Opening, continuing, refusing, rebuilding.

use keepwatch_journal::ChainHash;
use rusqlite::Connection;

use super::kit::*;
use crate::inventory::{Applied, Host, Inventory, InventoryError, SCHEMA_VERSION, View};
use crate::model::{Cursor, JournalId, Record, Seq};

fn some_records() -> Vec<Record> {
    records(vec![config("r"), create("d", dir(2)), create("d/a", file(3, 1)), rename("d", "e", None), delete("e/a")])
}

#[test]
fn a_cursor_stands_where_the_last_batch_ended() {
    let mut kit = Kit::new();
    assert_eq!(kit.inventory.cursor().unwrap(), None);
    kit.apply_records(&some_records()[..2]);
    assert_eq!(kit.inventory.cursor().unwrap(), Some(cursor(2)));
    assert_eq!(kit.view().cursor().unwrap(), Some(cursor(2)));
    let applied = kit.inventory.apply(&some_records(), cursor(5)).unwrap();
    assert_eq!(applied, Applied { records: 3, skipped: 2, problems: 0 });
}

#[test]
fn records_that_do_not_continue_are_refused() {
    let mut kit = Kit::new();
    let all = some_records();
    let next = |error| match error {
        Err(InventoryError::Discontinuous { expected, found, .. }) => (expected.0, found.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(kit.inventory.apply(&all[1..], cursor(5))), (1, 2));
    kit.apply_records(&all[..2]);
    assert_eq!(next(kit.inventory.apply(&all[3..], cursor(5))), (3, 4));
    let holed = [all[2].clone(), all[4].clone()];
    assert_eq!(next(kit.inventory.apply(&holed, cursor(5))), (4, 5));
    // A cursor that is not where the records end.
    assert_eq!(next(kit.inventory.apply(&all[..4], cursor(5))), (5, 6));
    assert_eq!(next(kit.inventory.apply(&[], cursor(5))), (3, 6));
    assert_eq!(kit.inventory.cursor().unwrap(), Some(cursor(2)));
}

#[test]
fn another_past_is_refused() {
    let mut kit = Kit::new();
    kit.apply_records(&some_records());
    let forks = [
        Cursor { hash: ChainHash([9; 32]), ..cursor(5) },
        Cursor { journal: JournalId(uuid::Uuid::from_u128(43)), ..cursor(5) },
    ];
    for fork in forks {
        let refused = kit.inventory.apply(&some_records(), fork);
        assert!(matches!(refused, Err(InventoryError::Forked { .. })), "{refused:?}");
    }
}

#[test]
fn effects_and_cursor_fail_together() {
    let mut kit = Kit::new();
    kit.apply_records(&some_records()[..2]);
    let before = kit.dump();
    // The cursor cannot move: the last statement of the batch is refused by a trigger of another connection.
    let other = Connection::open(kit.path()).unwrap();
    other.execute_batch("CREATE TRIGGER stop BEFORE UPDATE ON cursors BEGIN SELECT RAISE(FAIL, 'stop'); END").unwrap();
    let refused = kit.inventory.apply(&some_records()[2..], cursor(5));
    assert!(matches!(refused, Err(InventoryError::Sqlite { .. })), "{refused:?}");
    assert_eq!(kit.dump(), before);
    other.execute_batch("DROP TRIGGER stop").unwrap();
    kit.apply_records(&some_records()[2..]);
    check(&kit.view().db);
    assert_eq!(kit.tree(), ["r:e/=2"]);
}

#[test]
fn what_is_not_ours_is_refused() {
    let kit = Kit::new();
    let path = kit.path();
    let refused = Inventory::open(&path, &Host { id: "m2".into(), ..host() });
    assert!(matches!(refused, Err(InventoryError::OtherHost { .. })), "{refused:?}");
    let foreign = kit.dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let refused = Inventory::open(&foreign, &host());
    assert!(matches!(refused, Err(InventoryError::Foreign { .. })), "{refused:?}");
    let set = |version: i64| Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
    set(SCHEMA_VERSION + 1);
    let refused = Inventory::open(&path, &host());
    assert!(matches!(refused, Err(InventoryError::Newer { .. })), "{refused:?}");
    set(SCHEMA_VERSION - 1);
    let refused = View::open(&path);
    assert!(matches!(refused, Err(InventoryError::Older { .. })), "{refused:?}");
    assert!(matches!(View::open(&kit.dir.path().join("none.db")), Err(InventoryError::Sqlite { .. })));
}

#[test]
fn a_rebuild_ends_in_the_identical_tables() {
    let mut kit = Kit::new();
    for record in some_records() {
        kit.apply_records(&[record]);
    }
    let before = kit.dump();
    let path = kit.path();
    // An older schema, with a WAL that must not reach the new database.
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=0; DELETE FROM files").unwrap();
    assert!(std::fs::metadata(kit.dir.path().join("inventory.db-wal")).unwrap().len() > 0);
    let batches = some_records().chunks(2).map(<[Record]>::to_vec).collect::<Vec<_>>();
    let batches = batches.into_iter().map(|batch| {
        let to = cursor(batch.last().map_or(0, |record| record.seq.0));
        Ok::<_, InventoryError>((batch, to))
    });
    kit.inventory = Inventory::rebuild(&path, &host(), batches).unwrap();
    assert_eq!(kit.dump(), before);
    assert!(!kit.dir.path().join("inventory.db.new").exists());
    kit.apply_records(&[record(6, create("e/b", file(9, 1)), None)]);
    assert_eq!(kit.view().cursor().unwrap().unwrap().seq, Seq(6));
}

#[test]
fn a_rebuild_that_fails_leaves_the_old_one() {
    let mut kit = Kit::new();
    kit.apply_records(&some_records());
    let before = kit.dump();
    let path = kit.path();
    let holed = vec![Ok((some_records()[..1].to_vec(), cursor(1))), Ok((some_records()[3..].to_vec(), cursor(5)))];
    let refused = Inventory::rebuild::<InventoryError>(&path, &host(), holed);
    assert!(matches!(refused, Err(InventoryError::Discontinuous { .. })), "{refused:?}");
    assert_eq!(kit.dump(), before);
}
