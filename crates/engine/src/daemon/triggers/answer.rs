//! What people ask of a trigger: to try again what was given up, or to let it be.

use super::{Asked, Trouble, Wish, Worker};
use crate::inventory::{FileId, InventoryError, RunRow, RunState, View};
use crate::model::{Body, RelPath, RootName, Run, RunStep, Seq, TriggerName};

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
        let resumed = acts(&self.view, &self.settings.name, &Wish::Retry(place.clone()))?;
        let count = resumed.len() as u64;
        self.acts.extend(resumed);
        self.tell()?;
        self.applied(Seq::ZERO)?;
        if count > 0 {
            // They may have other names by now.
            self.pass(None)?;
        }
        self.queue.hurry()?;
        Ok(count)
    }

    fn skip(&mut self, place: &Place) -> Result<u64, Trouble> {
        let dead = rows(&self.view, self.id, RunState::Dead, place)?;
        let mut skipped = dead.len() as u64;
        self.acts.extend(dead.iter().map(|row| about(row, &self.settings.name, RunStep::Ran, Some("skipped"))));
        let mut behind = i64::MIN;
        loop {
            let page = self.queue.after(behind, PAGE)?;
            let Some(last) = page.last() else { break };
            behind = last.file;
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
}

/// What a wish comes to where no service runs: acts about what was given up, and of a skip also about what was cut or waits for
/// another attempt. What was never tried is not among it: it is due at the next start.
///
/// # Errors
/// SQLite's.
pub fn acts(view: &View, trigger: &TriggerName, wish: &Wish) -> Result<Vec<Body>, InventoryError> {
    let Some(known) = view.trigger(trigger)? else { return Ok(Vec::new()) };
    let (states, place, step, why) = match wish {
        Wish::Retry(place) => (&[RunState::Dead][..], place, RunStep::Resumed, None),
        Wish::Skip(place) => {
            (&[RunState::Dead, RunState::Started, RunState::Resumed][..], place, RunStep::Ran, Some("skipped"))
        }
    };
    let mut acts = Vec::new();
    for state in states {
        acts.extend(rows(view, known.id, *state, place)?.iter().map(|row| about(row, trigger, step, why)));
    }
    Ok(acts)
}

fn about(row: &RunRow, trigger: &TriggerName, step: RunStep, why: Option<&str>) -> Body {
    Body::Run(Box::new(Run {
        step,
        trigger: trigger.clone(),
        root: RootName::new(row.root.as_str()),
        path: row.path.clone(),
        file: row.file_id.0,
        version: row.version,
        more: Vec::new(),
        process: None,
        why: why.map(str::to_owned),
    }))
}

/// Runs in a state, at a place or all.
fn rows(view: &View, trigger: i64, state: RunState, place: &Place) -> Result<Vec<RunRow>, InventoryError> {
    let mut rows = Vec::new();
    let mut after = FileId(i64::MIN);
    loop {
        let page = view.runs_after(trigger, state, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(rows) };
        after = last.file_id;
        rows.extend(page.into_iter().filter(|row| is_within(place, &RootName::new(row.root.as_str()), &row.path)));
    }
}

fn is_within(place: &Place, root: &RootName, path: &RelPath) -> bool {
    place.as_ref().is_none_or(|(of, below)| of == root && path.is_within(below))
}
