//! What people ask of a trigger: to try again what was given up, or to let it be.

use super::{Asked, Trouble, Wish, Worker};
use crate::inventory::{FileId, RunRow, RunState};
use crate::model::{RelPath, RootName, RunStep, Seq};

/// Rows that are looked at together.
const PAGE: usize = 1_000;

type Place = Option<(RootName, RelPath)>;

impl Worker {
    /// Answers all who asked; whether anybody did.
    pub(super) fn answer(&mut self) -> Result<bool, Trouble> {
        let asked: Vec<Asked> = self.around.asked.try_iter().collect();
        let was_asked = !asked.is_empty();
        asked.iter().try_for_each(|asked| self.answer_one(asked))?;
        Ok(was_asked)
    }

    pub(super) fn answer_one(&mut self, asked: &Asked) -> Result<(), Trouble> {
        self.applied(Seq::ZERO)?;
        let count = match &asked.wish {
            Wish::Retry(place) => self.retry(place),
            Wish::Skip(place) => self.skip(place),
        };
        let _ = asked.done.send(count.as_ref().map(|count| *count).map_err(ToString::to_string));
        count.map(|_| ())
    }

    fn retry(&mut self, place: &Place) -> Result<u64, Trouble> {
        let dead = self.dead(place)?;
        for row in &dead {
            if let Some(root) = self.root_index(&RootName::new(row.root.as_str())) {
                self.acts.push(self.step(RunStep::Resumed, root, &row.path, (row.file_id.0, row.version), None));
            }
        }
        self.tell()?;
        self.applied(Seq::ZERO)?;
        if !dead.is_empty() {
            // They may have other names by now.
            self.pass(None)?;
        }
        self.queue.hurry()?;
        Ok(dead.len() as u64)
    }

    fn skip(&mut self, place: &Place) -> Result<u64, Trouble> {
        let mut skipped = 0;
        for row in self.dead(place)? {
            if let Some(root) = self.root_index(&RootName::new(row.root.as_str())) {
                let about = (row.file_id.0, row.version);
                self.acts.push(self.step(RunStep::Ran, root, &row.path, about, Some("skipped")));
                skipped += 1;
            }
        }
        let mut behind = Seq::ZERO;
        loop {
            let page = self.queue.first(behind, PAGE)?;
            let Some(last) = page.last() else { break };
            behind = last.order;
            for waiting in page {
                let root = self.settings.roots[waiting.root].0.clone();
                if is_within(place, &root, &waiting.path) {
                    self.queue.remove(waiting.file)?;
                    self.let_go(&waiting)?;
                    let about = (waiting.file, waiting.version);
                    self.acts.push(self.step(RunStep::Ran, waiting.root, &waiting.path, about, Some("skipped")));
                    skipped += 1;
                }
            }
            self.tell()?;
        }
        self.tell()?;
        Ok(skipped)
    }

    /// What was given up, at a place or all.
    fn dead(&self, place: &Place) -> Result<Vec<RunRow>, Trouble> {
        let mut dead = Vec::new();
        let mut after = FileId(i64::MIN);
        loop {
            let page = self.view.runs_after(self.id, RunState::Dead, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(dead) };
            after = last.file_id;
            dead.extend(page.into_iter().filter(|row| is_within(place, &RootName::new(row.root.as_str()), &row.path)));
        }
    }
}

fn is_within(place: &Place, root: &RootName, path: &RelPath) -> bool {
    place.as_ref().is_none_or(|(of, below)| of == root && path.is_within(below))
}
