//! What is wrong with a configuration, said so that a person can mend it: where, what was
//! found, what was expected, what to do.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::document::{Node, Path};

/// More problems than this are counted, not shown.
const SHOWN: usize = 50;
/// After so many the reader stops, so that a file of nothing else stays cheap.
pub(super) const MOST_PROBLEMS: usize = 1_000;
/// Columns of a source line that are shown, around the offence.
const WINDOW: usize = 100;

/// The sort of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The file can't be read.
    Unreadable,
    /// The text is not TOML or JSON.
    Syntax,
    /// No version of heddle knows the key.
    UnknownKey,
    /// A key or value that a later version of heddle will know.
    NotSupported,
    /// A key that must be there is not.
    MissingKey,
    /// A value of another type: an integer for a string, say.
    WrongType,
    /// A value out of its range, or a text that does not read as what it should be.
    BadValue,
    /// A value that is good alone and clashes with another.
    Conflict,
}

impl Kind {
    const fn title(self) -> &'static str {
        match self {
            Self::Unreadable => "can't be read",
            Self::Syntax => "syntax error",
            Self::UnknownKey => "unknown key",
            Self::NotSupported => "not supported by this version",
            Self::MissingKey => "missing key",
            Self::WrongType => "wrong type",
            Self::BadValue => "bad value",
            Self::Conflict => "conflict",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The sort of problem.
    pub kind: Kind,
    /// The dotted path of the key, indices counted from zero: `network[1].subnets[0]`.
    #[serde(serialize_with = "as_text")]
    pub key: Path,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
    /// What to do about it; empty if that is plain from the rest.
    pub advice: String,
    /// Where in the file; `None` for what does not come from a file.
    pub place: Option<Place>,
    /// Whether the key itself offends, rather than its value.
    #[serde(skip)]
    pub(super) at_key: bool,
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The line, or the part of a long one that is around the offence.
    pub excerpt: String,
    /// Where in the excerpt the offence begins, in characters from 0.
    pub offset: usize,
    /// Characters of the offence, at least 1.
    pub width: usize,
}

impl Problem {
    pub(super) fn new(
        kind: Kind,
        key: Path,
        found: impl Into<String>,
        expected: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (found, expected, advice) = (found.into(), expected.into(), advice.into());
        let at_key = matches!(kind, Kind::UnknownKey);
        Self { kind, key, found, expected, advice, place: None, at_key }
    }

    /// The same problem, of the key itself rather than of its value.
    pub(super) fn of_key(self) -> Self {
        Self { at_key: true, ..self }
    }

    /// The same problem, in an object that stands at `root`.
    pub(super) fn under(self, root: &Path) -> Self {
        Self { key: self.key.under(root), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.to_string();
        let colon = if key.is_empty() { "" } else { ": " };
        write!(f, "{key}{colon}{}: found {}", self.kind.title(), self.found)?;
        write!(f, ", expected {}", self.expected)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
pub struct Report {
    /// The file's name as it was given.
    pub file: String,
    /// The first problems.
    pub problems: Vec<Problem>,
    /// How many more were found.
    pub omitted: usize,
}

impl Report {
    /// A report of problems whose places are looked up in `root`, the tree of `text`.
    pub(super) fn new(file: &str, text: &str, root: &Node, problems: Vec<Problem>) -> Self {
        let span = |problem: &Problem| root.locate(&problem.key, problem.at_key);
        let located = problems.into_iter().map(|problem| (span(&problem), problem)).collect();
        Self::at(file, text, located)
    }

    /// A report of problems whose byte ranges in `text` are known.
    pub(super) fn at(
        file: &str,
        text: &str,
        mut problems: Vec<(std::ops::Range<usize>, Problem)>,
    ) -> Self {
        problems.sort_by_key(|(span, _)| span.start);
        let omitted = problems.len().saturating_sub(SHOWN);
        let placed = |(span, problem): (std::ops::Range<usize>, Problem)| Problem {
            place: Some(Place::new(text, span)),
            ..problem
        };
        let problems = problems.into_iter().take(SHOWN).map(placed).collect();
        Self { file: file.to_owned(), problems, omitted }
    }

    /// A report of one problem with the file as a whole.
    pub(super) fn whole(
        file: &str,
        kind: Kind,
        found: String,
        expected: &str,
        advice: &str,
    ) -> Self {
        let problem = Problem::new(kind, Path::default(), found, expected, advice);
        Self { file: file.to_owned(), problems: vec![problem], omitted: 0 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            show(f, &self.file, problem)?;
        }
        let total = self.problems.len() + self.omitted;
        let plural = if total == 1 { "" } else { "s" };
        let least = if total >= MOST_PROBLEMS { "at least " } else { "" };
        write!(f, "{least}{total} error{plural} in {}", self.file)?;
        match self.omitted {
            0 => Ok(()),
            more => write!(f, ", of which {more} are not shown"),
        }
    }
}

/// One problem as compilers print them.
fn show(f: &mut fmt::Formatter<'_>, file: &str, problem: &Problem) -> fmt::Result {
    let key = problem.key.to_string();
    let colon = if key.is_empty() { "" } else { ": " };
    writeln!(f, "error: {key}{colon}{}", problem.kind.title())?;
    let mut margin = String::from(" ");
    match &problem.place {
        None => writeln!(f, "  --> {file}")?,
        Some(place) => {
            margin = " ".repeat(place.line.to_string().len() + 1);
            let (line, column) = (place.line, place.column);
            let blank = " ".repeat(place.offset);
            let carets = "^".repeat(place.width);
            writeln!(f, "{margin}--> {file}:{line}:{column}")?;
            writeln!(f, "{margin}|\n{line} | {}\n{margin}| {blank}{carets}", place.excerpt)?;
        }
    }
    writeln!(f, "{margin}= found: {}", problem.found)?;
    writeln!(f, "{margin}= expected: {}", problem.expected)?;
    if !problem.advice.is_empty() {
        writeln!(f, "{margin}= help: {}", problem.advice)?;
    }
    writeln!(f)
}

impl Place {
    fn new(text: &str, span: std::ops::Range<usize>) -> Self {
        let start = boundary(text, span.start);
        let end = boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let line = text[..line_start].matches('\n').count() + 1;
        let before = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end).max(start)].chars().count();
        let skipped = if before + width > WINDOW { before.saturating_sub(WINDOW / 4) } else { 0 };
        let excerpt = text[line_start..line_end].chars().skip(skipped).take(WINDOW);
        let excerpt = excerpt.map(printable).collect::<String>().trim_end().to_owned();
        let offset = before - skipped;
        let width = width.min(WINDOW - offset).max(1);
        Self { line, column: before + 1, excerpt, offset, width }
    }
}

/// The end of the character at or after `byte`, within the text.
fn boundary(text: &str, byte: usize) -> usize {
    (byte..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// One column per character, and nothing that a terminal obeys.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters() {
        let text = "a = 1\nné = \"ü\"\n";
        let start = text.find('"').unwrap();
        let place = Place::new(text, start..text.len());
        assert_eq!((place.line, place.column, place.offset, place.width), (2, 6, 5, 3));
        assert_eq!(place.excerpt, "né = \"ü\"");
    }

    #[test]
    fn long_lines_are_cut_around_the_offence() {
        let text = format!("{}X\u{1b}[31m{}", "x".repeat(5_000), "y".repeat(5_000));
        let place = Place::new(&text, 5_000..5_001);
        assert_eq!(place.column, 5_001);
        assert_eq!(place.excerpt.chars().count(), WINDOW);
        assert_eq!(place.excerpt.chars().nth(place.offset), Some('X'));
        assert!(!place.excerpt.contains('\u{1b}'));
    }

    #[test]
    fn places_at_and_beyond_the_end_exist() {
        for text in ["", "a", "a\n", "é"] {
            for start in 0..6 {
                let place = Place::new(text, start..start + 3);
                assert!(place.width >= 1 && place.line >= 1);
            }
        }
    }
}
