//! What a view gives out.

use std::ops::ControlFlow;

use super::kit::*;
use crate::inventory::{DirId, ListQuery, View};

#[test]
fn children_come_in_the_order_of_their_bytes() {
    let kit = Kit::with(vec![
        create("b", file(3, 1)),
        create("a", dir(2)),
        create("a/x", file(4, 1)),
        create("a-", file(5, 1)),
        change(crate::model::Op::Create, "~", None),
    ]);
    let view = kit.view();
    let top = view.root_dir(&root("r")).unwrap().unwrap();
    let mut seen = Vec::new();
    view.children(top, |child| {
        let inode = child.facts.map(|facts| facts.inode);
        seen.push((String::from_utf8_lossy(child.name).into_owned(), child.file_id.0, child.dir, inode));
    })
    .unwrap();
    let expected: [(&str, i64, Option<DirId>, Option<u64>); 4] =
        [("a", 3, Some(DirId(3)), Some(2)), ("a-", 5, None, Some(5)), ("b", 2, None, Some(3)), ("~", 6, None, None)];
    assert_eq!(seen, expected.map(|(name, id, dir, inode)| (name.to_owned(), id, dir, inode)));
    let page = view.children_after(top, b"a", 2).unwrap();
    assert_eq!(page.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(), [&b"a-"[..], b"b"]);
    let (dir, name, known) = view.by_inode(&root("r"), 4).unwrap().remove(0);
    assert_eq!((dir, &name[..], known.file_id.0), (DirId(3), &b"x"[..], 4));
    assert_eq!(view.by_inode(&root("s"), 4).unwrap(), []);
    assert_eq!(view.dir_path(DirId(3)).unwrap(), Some((root("r"), rel("a"))));
    assert_eq!(view.dir_by_path(&root("r"), &rel("a/x")).unwrap(), None);
}

#[test]
fn a_listing_turns_pages_now_and_in_the_past() {
    // More names than a page holds, half of them gone later: a past listing merges two streams of pages.
    let name = |number: u64| format!("d/{number:04}");
    let mut bodies = vec![create("d", dir(2))];
    bodies.extend((0..1500).map(|number| create(&name(number), file(100 + number, 1))));
    let kit = Kit::with(
        [bodies, (0..1500).filter(|number| number / 300 % 2 == 0).map(|number| delete(&name(number))).collect()]
            .concat(),
    );
    let view = kit.view();
    let all = listed(&view, &ListQuery::default());
    assert_eq!(all.len(), 601);
    let at = Some(crate::model::Timestamp(EPOCH + 1502 * SECOND));
    let then = listed(&view, &ListQuery { at, ..ListQuery::default() });
    assert_eq!(then.len(), 1501);
    assert!(then.windows(2).all(|pair| pair[0].path < pair[1].path));
}

#[test]
fn a_listing_is_of_the_path_asked_for_and_can_be_stopped() {
    let kit = Kit::with(vec![
        create("a", dir(2)),
        create("a/x", file(4, 1)),
        create("ab", file(5, 1)),
        config("s"),
        within("s", create("a", file(6, 1))),
    ]);
    let view = kit.view();
    let paths = |query: &ListQuery| listed(&view, query).iter().map(show).collect::<Vec<_>>();
    assert_eq!(paths(&ListQuery { path: rel("a"), ..ListQuery::default() }), ["r:a/=2", "r:a/x=4", "s:a=6"]);
    let query = ListQuery { root: Some(root("r")), path: rel("a/x"), at: None };
    assert_eq!(paths(&query), ["r:a/x=4"]);
    let mut seen = 0;
    let stop = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    view.list(&ListQuery::default(), stop).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn a_view_reads_while_the_writer_writes() {
    let mut kit = Kit::with(vec![create("a", file(3, 1)), create("b", file(4, 1))]);
    let view = View::open(&kit.path()).unwrap();
    let mut seen = Vec::new();
    let write = |listed| {
        seen.push(show(&listed));
        kit.apply(vec![create(&format!("z{}", seen.len()), file(9, 1))]);
        ControlFlow::Continue(())
    };
    view.list(&ListQuery::default(), write).unwrap();
    assert_eq!(seen, ["r:a=3", "r:b=4"], "one committed state");
    assert_eq!(listed(&view, &ListQuery::default()).len(), 4);
}
