//! What a token's name says, and what follows from it for whoever wants the path.

use std::fmt;

/// A version, as every host sees it: none knows the other's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970. Some file systems know seconds only.
    pub mtime_ns: i64,
}

const SECOND_NS: i64 = 1_000_000_000;

impl Content {
    /// Whether two hosts mean the same version: where one of them sees whole seconds, the seconds decide.
    #[must_use]
    pub fn is_same(&self, other: &Content) -> bool {
        let is_coarse = [self, other].iter().any(|content| content.mtime_ns % SECOND_NS == 0);
        let seconds = |content: &Content| content.mtime_ns.div_euclid(SECOND_NS);
        self.size == other.size && (self.mtime_ns == other.mtime_ns || (is_coarse && seconds(self) == seconds(other)))
    }
}

/// How far a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its command runs, or failed and is to run again there.
    Runs,
    /// Its command was fine.
    Done,
    /// Its command failed too often.
    Dead,
    /// Whoever had it gave it back.
    Free,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Stage::Runs => "runs",
            Stage::Done => "done",
            Stage::Dead => "dead",
            Stage::Free => "free",
        }
    }

    fn from_word(word: &str) -> Option<Stage> {
        [Stage::Runs, Stage::Done, Stage::Dead, Stage::Free].into_iter().find(|stage| stage.as_str() == word)
    }
}

/// Who has a path, and how far it is with which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Counts the changes of this path's token.
    pub number: u64,
    /// How far it is.
    pub stage: Stage,
    /// With which version.
    pub content: Content,
    /// What the command is told: the same for every run of the version, on whatever host.
    pub key: String,
    /// The holder's life, counted up with every start.
    pub life: u64,
    /// The holder's state, which no other host has.
    pub state: String,
    /// The holder's host, for people.
    pub host: String,
}

/// What may stand in a token's name: letters, digits and `-`; whatever else becomes `_`. At most 64 bytes.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().take(64).map(|one| if one.is_ascii_alphanumeric() || one == '-' { one } else { '_' }).collect()
}

/// The name of its file.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Token { number, stage, content, key, life, state, host } = self;
        let Content { size, mtime_ns } = content;
        write!(f, "{number}.{}.{size}.{mtime_ns}.{key}.{life}.{state}.{host}", stage.as_str())
    }
}

impl Token {
    /// Reads a name; `None`: it is no token's.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Token> {
        let mut fields = std::str::from_utf8(name).ok()?.split('.');
        let mut next = || fields.next();
        let token = Token {
            number: next()?.parse().ok()?,
            stage: Stage::from_word(next()?)?,
            content: Content { size: next()?.parse().ok()?, mtime_ns: next()?.parse().ok()? },
            key: next()?.to_owned(),
            life: next()?.parse().ok()?,
            state: next()?.to_owned(),
            host: next()?.to_owned(),
        };
        next().is_none().then_some(token)
    }

    /// The next one of the same path.
    #[must_use]
    pub fn then(&self, stage: Stage) -> Token {
        Token { number: self.number + 1, stage, ..self.clone() }
    }
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The path can be had, if nobody is faster.
    Take,
    /// Somebody has it.
    Wait,
    /// This version is done.
    Done,
    /// This version was given up.
    Dead,
}

/// What a token means for whoever wants its path for a version: `is_over` says whether its holder is, or is the one who asks,
/// `is_asked_for` that a person wants what was given up.
#[must_use]
pub fn decide(found: Option<&Token>, wanted: &Content, is_over: bool, is_asked_for: bool) -> Answer {
    let Some(token) = found else { return Answer::Take };
    let is_same = token.content.is_same(wanted);
    match token.stage {
        Stage::Done if is_same => Answer::Done,
        Stage::Dead if is_same && !is_asked_for => Answer::Dead,
        Stage::Runs if !is_over => Answer::Wait,
        Stage::Runs | Stage::Done | Stage::Dead | Stage::Free => Answer::Take,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token(stage: Stage) -> Token {
        let content = Content { size: 7, mtime_ns: -1_500_000_000 };
        let (key, state) = ("ab".to_owned(), plain("01-x"));
        Token { number: 3, stage, content, key, life: 9, state, host: plain("a.example/\u{e9}") }
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let token = token(Stage::Dead);
        assert_eq!(token.to_string(), "3.dead.7.-1500000000.ab.9.01-x.a_example__");
        assert_eq!(Token::parse(token.to_string().as_bytes()).unwrap(), token);
        for name in
            ["", "3.dead.7.0.ab.9.01-x", "3.dead.7.0.ab.9.01-x.a.b", "3.what.7.0.ab.9.s.h", "x.dead.7.0.k.9.s.h"]
        {
            assert_eq!(Token::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn where_one_host_sees_seconds_the_seconds_decide() {
        let content = |size, mtime_ns| Content { size, mtime_ns };
        assert!(content(1, 5).is_same(&content(1, 5)) && !content(1, 5).is_same(&content(2, 5)));
        assert!(!content(1, 2_000_000_001).is_same(&content(1, 2_000_000_002)));
        assert!(content(1, 2_000_000_000).is_same(&content(1, 2_900_000_000)));
        assert!(!content(1, 2_000_000_000).is_same(&content(1, 3_000_000_000)));
        assert!(content(1, -2_000_000_000).is_same(&content(1, -1_100_000_000)));
    }

    #[test]
    fn a_path_is_had_by_one_and_a_version_is_done_once() {
        let (same, other) = (token(Stage::Done).content, Content { size: 8, mtime_ns: 0 });
        let answer = |stage, content: &Content, is_over, is_asked_for| {
            decide(Some(&token(stage)), content, is_over, is_asked_for)
        };
        assert_eq!(decide(None, &same, false, false), Answer::Take);
        for is_over in [false, true] {
            assert_eq!(answer(Stage::Done, &same, is_over, true), Answer::Done);
            assert_eq!(answer(Stage::Done, &other, is_over, false), Answer::Take);
            assert_eq!(answer(Stage::Dead, &same, is_over, false), Answer::Dead);
            assert_eq!(answer(Stage::Dead, &same, is_over, true), Answer::Take);
            assert_eq!(answer(Stage::Free, &same, is_over, false), Answer::Take);
            let expected = if is_over { Answer::Take } else { Answer::Wait };
            assert_eq!(
                [answer(Stage::Runs, &same, is_over, true), answer(Stage::Runs, &other, is_over, false)],
                [expected; 2]
            );
        }
    }
}
