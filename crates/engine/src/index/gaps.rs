//! Whether what stood on a host is uncertain: gaps, as its acts tell of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::error::Result;
use super::list::IndexMoment;
use super::log::{ACT, record};
use super::view::{IndexHost, IndexRoot, IndexView};
use crate::model::{Body, RelPath, RootName, Seq, Timestamp};

/// A stretch in which changes may have been missed, in one root (`None`: in whichever).
struct Stretch {
    gap: Seq,
    root: Option<RootName>,
    path: RelPath,
    since: Timestamp,
    closed: Option<Seq>,
}

/// The gaps of a host, made up by its acts in their order: as its inventory keeps them.
#[derive(Default)]
struct Gaps {
    watched: BTreeSet<RootName>,
    stretches: Vec<Stretch>,
}

impl Gaps {
    fn take(&mut self, seq: Seq, at: Timestamp, body: &Body) {
        match body {
            Body::Config(config) => {
                if config.dir.is_some() {
                    self.watched.insert(config.root.clone());
                } else {
                    self.watched.remove(&config.root);
                }
            }
            Body::Gap(gap) => {
                // A gap that names no root touches those that are watched.
                let roots: Vec<Option<RootName>> = match &gap.root {
                    Some(root) => vec![Some(root.clone())],
                    None if self.watched.is_empty() => vec![None],
                    None => self.watched.iter().cloned().map(Some).collect(),
                };
                let since = gap.since.map_or(at, |since| since.min(at));
                self.stretches.extend(roots.into_iter().map(|root| Stretch {
                    gap: seq,
                    root,
                    path: gap.path.clone(),
                    since,
                    closed: None,
                }));
            }
            Body::GapClosed(end) => {
                let is_meant = |stretch: &&mut Stretch| {
                    stretch.gap == end.gap
                        && stretch.closed.is_none()
                        && (end.root.is_none() || stretch.root.is_none() || stretch.root == end.root)
                };
                self.stretches.iter_mut().filter(is_meant).for_each(|stretch| stretch.closed = Some(seq));
            }
            // All else opens no gap and ends none.
            _ => {}
        }
    }

    /// Whether a gap that touches a path was open after a record, or began before that moment unnoticed.
    fn touch(&self, root: &RootName, path: &RelPath, seq: Seq, at: Timestamp) -> bool {
        self.stretches.iter().any(|stretch| {
            stretch.since <= at
                && stretch.closed.is_none_or(|closed| closed > seq)
                && stretch.root.as_ref().is_none_or(|of| of == root)
                && (stretch.path.is_within(path) || path.is_within(&stretch.path))
        })
    }
}

impl IndexView {
    /// Whether changes at or below one of these places of a host may have been missed then.
    ///
    /// # Errors
    /// The server's.
    pub fn is_uncertain(
        &self,
        host: &IndexHost,
        places: &[(&IndexRoot, &RelPath)],
        moment: IndexMoment,
    ) -> Result<bool> {
        let mut gaps = Gaps::default();
        let sql = format!(
            "{ACT} FROM acts a WHERE a.host_id=$1 AND a.act <> 'settled' AND a.act IN ('config', 'gap', 'gap_closed') ORDER BY 1"
        );
        self.stream(&sql, &[&host.id], |row| {
            if let Some(record) = record(row) {
                gaps.take(record.seq, record.at, &record.body);
            }
            ControlFlow::Continue(())
        })?;
        let at = moment.at.unwrap_or(Timestamp(i64::MAX));
        Ok(places.iter().any(|(root, path)| gaps.touch(&root.name, path, moment.seq, at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, Gap, GapClosed, GapReason};

    fn root(name: &str) -> RootName {
        RootName::new(name)
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes().to_vec()).expect("a relative path")
    }

    fn config(name: &str, watched: bool) -> Body {
        let dir = watched.then(|| b"/somewhere".to_vec().into());
        Body::Config(Config { root: root(name), dir, identity: None, accepted: false })
    }

    fn gap(name: Option<&str>, at: &str, since: Option<i64>) -> Body {
        let reason = GapReason::Asked;
        Body::Gap(Gap { root: name.map(root), path: path(at), reason, since: since.map(Timestamp), note: None })
    }

    fn closed(gap: u64, name: Option<&str>) -> Body {
        Body::GapClosed(GapClosed { gap: Seq(gap), root: name.map(root), scanned: 0, found: 0 })
    }

    /// When a record came.
    fn second(seq: u64) -> Timestamp {
        Timestamp(i64::try_from(seq).expect("a small number"))
    }

    #[test]
    fn what_a_gap_touches_is_uncertain_until_it_is_closed() {
        let acts = [
            config("a", true),
            config("b", true),
            config("c", true),
            config("c", false),
            gap(None, "", Some(2)),
            closed(5, Some("a")),
            gap(Some("a"), "d", None),
            closed(7, None),
        ];
        let mut gaps = Gaps::default();
        for (seq, body) in (1..).zip(&acts) {
            gaps.take(Seq(seq), second(seq), body);
        }
        let uncertain = |name: &str, at: &str, seq: u64| gaps.touch(&root(name), &path(at), Seq(seq), second(seq));
        // It began before it was journaled.
        assert_eq!(
            (1..=8).map(|seq| uncertain("a", "", seq)).collect::<Vec<_>>(),
            [false, true, true, true, true, false, true, false]
        );
        assert_eq!(
            (1..=8).map(|seq| uncertain("b", "", seq)).collect::<Vec<_>>(),
            [false, true, true, true, true, true, true, true]
        );
        assert!((1..=8).all(|seq| !uncertain("c", "", seq)), "it was not watched");
        assert!(uncertain("a", "d/below", 7) && !uncertain("a", "else", 7));
    }
}
