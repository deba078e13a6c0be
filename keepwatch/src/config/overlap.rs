//! Roots that are the same tree, or lie in one another, would record every change twice under two names.

use std::path::{Path, PathBuf};

use super::problem::{Origin, Problem};
use super::settings::{Origins, RootSettings, pattern_set};

/// Refuses identical and nested roots, unless the outer one ignores the inner.
///
/// Paths are compared after symbolic links are resolved, as far as they exist. Aliases by bind mounts are the engine's
/// to find, when it knows each root's file system.
pub fn check(roots: &[RootSettings], origins: &Origins, problems: &mut Vec<Problem>) {
    let real: Vec<PathBuf> = roots.iter().map(|root| resolve(&root.path)).collect();
    for (index, root) in roots.iter().enumerate() {
        for (earlier_index, earlier) in roots.iter().enumerate().take(index) {
            let (path, earlier_path) = (&real[index], &real[earlier_index]);
            let problem = if path == earlier_path {
                Some((
                    root,
                    format!("roots `{}` and `{}` are the same directory, {}", earlier.name, root.name, path.display()),
                    None,
                ))
            } else if let Ok(inner) = path.strip_prefix(earlier_path) {
                nested(earlier, root, inner)
            } else if let Ok(inner) = earlier_path.strip_prefix(path) {
                nested(root, earlier, inner)
            } else {
                None
            };
            if let Some((blamed, message, hint)) = problem {
                let origin = origins.get(&format!("roots.{}.path", blamed.name)).cloned().unwrap_or(Origin::Default);
                problems.push(Problem { origin, message, hint });
            }
        }
    }
}

fn nested<'a>(
    outer: &RootSettings,
    inner: &'a RootSettings,
    below: &Path,
) -> Option<(&'a RootSettings, String, Option<String>)> {
    // A pattern that cannot be compiled is reported where it stands; here it ignores nothing.
    let ignores = pattern_set(Path::new("/"), &outer.ignore)
        .is_ok_and(|patterns| patterns.matched_path_or_any_parents(below, true).is_ignore());
    if ignores {
        return None;
    }
    let message = format!(
        "root `{}` lies within root `{}`: {} is below {}",
        inner.name,
        outer.name,
        inner.path.display(),
        outer.path.display()
    );
    let hint = format!(
        "remove `{}`, or let the outer one leave it out: ignore = [\"/{}/\"] in [roots.{}]",
        inner.name,
        below.display(),
        outer.name
    );
    Some((inner, message, Some(hint)))
}

/// The path with symbolic links resolved, as far as it exists; a root that is absent now is compared by its text.
fn resolve(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|ancestor| Some((ancestor.canonicalize().ok()?, path.strip_prefix(ancestor).ok()?)))
        .map_or_else(|| path.to_owned(), |(real, rest)| real.join(rest).components().collect())
}
