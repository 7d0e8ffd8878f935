//! What a document of the repository links to, and what it writes as code.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A Markdown file, read.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Where its headings can be linked to.
    pub(super) anchors: BTreeSet<String>,
    /// What its links point at.
    pub(super) links: Vec<Excerpt>,
    /// Code in a sentence.
    pub(super) spans: Vec<Excerpt>,
    /// Code in the first column of a table of commands.
    pub(super) commands: Vec<Excerpt>,
    /// Lines of code, by language.
    pub(super) blocks: Vec<(String, Excerpt)>,
}

/// A piece of a document.
#[derive(Debug, Clone)]
pub(super) struct Excerpt {
    pub(super) text: String,
    /// The line on which it begins.
    pub(super) line: usize,
}

impl Document {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(path, text)
    }

    pub(super) fn parse(path: &Path, text: String) -> Self {
        let mut document = Self {
            path: path.to_owned(),
            text: String::new(),
            anchors: BTreeSet::new(),
            links: Vec::new(),
            spans: Vec::new(),
            commands: Vec::new(),
            blocks: Vec::new(),
        };
        document.walk(&text);
        document.text = text;
        document
    }

    fn walk(&mut self, text: &str) {
        let found = |piece: &str, at: &Range<usize>| Excerpt {
            text: piece.to_owned(),
            line: text[..at.start].matches('\n').count() + 1,
        };
        let mut slugs: BTreeMap<String, usize> = BTreeMap::new();
        let mut heading = None::<String>;
        let mut block = None::<(String, Excerpt)>;
        let mut table = TableCursor::default();
        for (event, at) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let times = slugs.entry(slug.clone()).or_default();
                    self.anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
                    *times += 1;
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match &kind {
                        CodeBlockKind::Fenced(language) => language.to_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    block = Some((language, found("", &at)));
                }
                Event::End(TagEnd::CodeBlock) => self.blocks.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    self.links.push(found(&dest_url, &at));
                }
                Event::Start(Tag::Table(_)) => table = TableCursor::default(),
                Event::Start(Tag::TableRow) => table.column = 0,
                Event::End(TagEnd::TableCell) => table.column += 1,
                Event::End(TagEnd::TableHead) => table.in_body = true,
                Event::End(TagEnd::Table) => table = TableCursor::default(),
                Event::Text(piece) => {
                    if let Some((_, block)) = &mut block {
                        block.text.push_str(&piece);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&piece);
                    } else if !table.in_body && table.column == 0 {
                        table.is_of_commands = piece.as_ref() == "command";
                    }
                }
                Event::Code(code) => {
                    let span = found(&code, &at);
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    if table.is_of_commands && table.in_body && table.column == 0 {
                        self.commands.push(span.clone());
                    }
                    self.spans.push(span);
                }
                _ => {}
            }
        }
    }

    /// Where a piece is.
    pub(super) fn at(&self, found: &Excerpt) -> String {
        format!("{}:{}", super::shown(&self.path), found.line)
    }
}

/// Where the parser is in a table.
#[derive(Debug, Default)]
struct TableCursor {
    is_of_commands: bool,
    in_body: bool,
    column: usize,
}

/// The anchor of a heading, as code forges make it.
fn slug(heading: &str) -> String {
    let heading = heading.to_lowercase();
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn a_document_is_read_as_a_forge_shows_it() {
    let text = "# One: `two` & three\n\n## Same\n## Same\n\n[a](b.md#c) `d e` \\`f\\`\n\n```sh\n[no](link) `g`\n```\n\n\
                | command | is |\n|---|---|\n| `run` | `no` |\n\n| name |\n|---|\n| `other` |\n";
    let document = Document::parse(Path::new("x.md"), text.to_owned());
    assert_eq!(document.anchors, ["one-two--three", "same", "same-1"].map(str::to_owned).into());
    let texts = |found: &[Excerpt]| found.iter().map(|found| found.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&document.links), ["b.md#c"]);
    assert_eq!(document.links[0].line, 6);
    assert_eq!(texts(&document.spans), ["two", "d e", "run", "no", "other"]);
    assert_eq!(texts(&document.commands), ["run"]);
    assert_eq!((document.blocks[0].0.as_str(), document.blocks[0].1.text.as_str()), ("sh", "[no](link) `g`\n"));
}
