//! Sentences: their sections, and their form in a page.

use crate::header::Header;

/// The comment of a function, sorted; sentences and paragraphs are unchanged.
#[derive(Default)]
pub(crate) struct Sorted {
    pub(crate) description: Vec<String>,
    /// "Returns ...": the result of a function that succeeds.
    pub(crate) result: Vec<String>,
    /// Errors, and sentences about them.
    pub(crate) errors: Vec<Clause>,
    pub(crate) cost: Vec<String>,
    pub(crate) threads: Vec<String>,
    pub(crate) kernel: Vec<String>,
}

/// A part of the sentence about errors.
#[derive(Clone, PartialEq)]
pub(crate) enum Clause {
    /// Numbers with the same meaning; an empty meaning is the usual one.
    Errors(Vec<String>, String),
    /// "those of loop_submit()"
    Words(String),
}

impl Sorted {
    /// Sorts the sentences of a comment by their beginnings.
    pub(crate) fn add(&mut self, paragraphs: &[String]) {
        for paragraph in paragraphs {
            let mut rest = Vec::new();
            // A sentence that begins with none of the known words belongs to the section of the
            // sentence before it.
            let mut about = About::Description;
            for sentence in sentences(paragraph) {
                if let Some(text) = sentence.strip_prefix("Returns ") {
                    let (result, errors) =
                        text.split_once(", or -E").map_or((text, None), |(a, b)| (a, Some(b)));
                    self.result.push(ended(result));
                    if let Some(errors) = errors {
                        self.errors.extend(clauses(&format!("-E{errors}")));
                    }
                    about = if errors.is_some() { About::Errors } else { About::Result };
                } else if let Some(text) = sentence.strip_prefix("Errors") {
                    let (lead, errors) = text.split_once(": ").expect("errors follow a colon");
                    if let Some(lead) = lead.strip_prefix(", ") {
                        self.errors.push(Clause::Words(format!("{lead}:")));
                    }
                    self.errors.extend(clauses(errors));
                    about = About::Errors;
                } else if sentence.starts_with("The loop's thread")
                    || sentence.starts_with("Any thread")
                {
                    self.threads.push(sentence.into());
                } else if sentence.starts_with("Since Linux ") {
                    self.kernel.push(sentence.into());
                } else if is_cost(sentence) {
                    self.cost
                        .push(as_sentence(sentence.strip_prefix("Costs ").unwrap_or(sentence)));
                } else {
                    match about {
                        About::Description => rest.push(sentence),
                        About::Result => self.result.push(sentence.into()),
                        About::Errors => self.errors.push(Clause::Words(sentence.into())),
                    }
                }
            }
            if !rest.is_empty() {
                self.description.push(rest.join("\n"));
            }
        }
    }
}

enum About {
    Description,
    Result,
    Errors,
}

fn is_cost(sentence: &str) -> bool {
    let counts = ["No ", "One ", "Two ", "At most "].iter().any(|word| sentence.starts_with(word));
    ["O(", "About ", "Some ", "Costs ", "Allocates "].iter().any(|word| sentence.starts_with(word))
        || counts && sentence.contains("system call")
}

/// Splits after a full stop that a new sentence follows.
pub(crate) fn sentences(paragraph: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut begin = 0;
    for (at, _) in paragraph.match_indices(". ") {
        let next = &paragraph[at + 2..];
        let word = &next[..next.find(' ').unwrap_or(next.len())];
        let begins = next
            .starts_with(|first: char| first.is_ascii_uppercase() || first == '`' || first == '"')
            || word.contains('(');
        if begins && !paragraph[..at].ends_with('.') {
            sentences.push(&paragraph[begin..=at]);
            begin = at + 2;
        }
    }
    sentences.push(&paragraph[begin..]);
    sentences
}

/// The parts of "-EBUSY the loop runs; -ENOMEM, -EPERM; those of loop_stop()."
pub(crate) fn clauses(text: &str) -> Vec<Clause> {
    let mut found = Vec::new();
    for clause in text.trim_end_matches('.').split("; ") {
        let mut names = Vec::new();
        for part in clause.replace(", -E", "\n-E").lines() {
            let (name, words) = part.split_once(' ').unwrap_or((part, ""));
            if !name.starts_with("-E") {
                found.push(Clause::Words(ended(part)));
                continue;
            }
            names.push(name.to_string());
            if !words.is_empty() {
                found.push(Clause::Errors(std::mem::take(&mut names), words.into()));
            }
        }
        found.extend(names.into_iter().map(|name| Clause::Errors(vec![name], String::new())));
    }
    found
}

/// The text of NAME: the first sentence of a comment, shortened to a line.
pub(crate) fn summary(paragraphs: &[String]) -> String {
    const LONGEST: usize = 72;
    let first = paragraphs.first().map_or("", |paragraph| sentences(paragraph)[0]);
    let mut text = first.trim_end_matches('.').replace('`', "");
    if let Some(at) = text.find(": the result is ") {
        text.truncate(at);
    }
    if let (true, Some(begin)) = (text.len() > LONGEST, text.find(" (")) {
        let mut depth = 0;
        let closes = |letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            letter == ')' && depth == 0
        };
        let end = text[begin..].find(closes).expect("each parenthesis is closed");
        text.replace_range(begin..=begin + end, "");
    }
    for end in [": ", "; ", ", "] {
        if text.len() > LONGEST {
            let mut ends = text
                .match_indices(end)
                .map(|(at, _)| at)
                .filter(|at| text[..*at].matches('"').count().is_multiple_of(2));
            let shorter =
                ends.clone().take_while(|at| *at <= LONGEST).last().or_else(|| ends.next());
            text.truncate(shorter.unwrap_or(text.len()));
        }
    }
    let proper = text.chars().nth(1).is_none_or(|second| second.is_ascii_uppercase());
    if proper { text } else { uncapitalized(&text) }
}

fn uncapitalized(text: &str) -> String {
    text[..1].to_lowercase() + &text[1..]
}

/// Makes a sentence of words: `for a period of 0` becomes `For a period of 0.`
pub(crate) fn as_sentence(text: &str) -> String {
    let first = text.split([' ', ',']).next().unwrap_or_default();
    let is_word = first.chars().all(|letter| letter.is_ascii_lowercase() || letter == '\'');
    ended(&if is_word { text[..1].to_uppercase() + &text[1..] } else { text.into() })
}

fn ended(text: &str) -> String {
    let text = text.trim_end_matches(',');
    if text.ends_with(['.', ':', '\n']) { text.into() } else { format!("{text}.") }
}

/// Converts sentences to roff: `own` is their page, `see` gets the pages that they refer to.
pub(crate) struct Typesetter<'a> {
    pub(crate) header: &'a Header,
    pub(crate) own: &'a str,
    /// The entries that this page explains.
    pub(crate) here: Vec<&'a str>,
    /// `name(section)`
    pub(crate) see: Vec<String>,
}

impl Typesetter<'_> {
    /// A paragraph, with a sentence in each line.
    pub(crate) fn paragraph(&mut self, text: &str) -> String {
        let mut out = String::new();
        for sentence in text.lines().flat_map(sentences) {
            out += &guarded(&self.words(sentence));
            out.push('\n');
        }
        out
    }

    /// Names are bold, arguments italic.
    pub(crate) fn words(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (length, set) = self.token(rest, &out);
            out += &set;
            rest = &rest[length..];
        }
        out
    }

    /// The first token of `rest`: its length, and its roff after `before`.
    fn token(&mut self, rest: &str, before: &str) -> (usize, String) {
        if let Some((code, _)) = rest.strip_prefix('`').and_then(|rest| rest.split_once('`')) {
            return (code.len() + 2, self.code(code));
        }
        // A `-` after a word is a hyphen; before a word, it is a part of -EBUSY, -1 and the like.
        let after_word = before.ends_with(|last: char| last.is_ascii_alphanumeric() || last == ')');
        let minus = usize::from(rest.starts_with('-') && !after_word);
        let length = minus + name_length(&rest[minus..]);
        if length == minus {
            let letter = rest.chars().next().expect("it is not empty");
            let hyphen = letter == '-' && after_word;
            return (
                letter.len_utf8(),
                if hyphen { "-".into() } else { escaped(&letter.to_string()) },
            );
        }
        let (token, after) = rest.split_at(length);
        if let Some(section) =
            section(after).filter(|_| token.chars().all(|letter| !letter.is_ascii_uppercase()))
        {
            self.see.push(format!("{token}{section}"));
            (length + section.len(), bold(token) + section)
        } else if after.starts_with("*()") {
            (length + 3, bold(&format!("{token}*")) + "()")
        } else if after.starts_with("()") {
            (length + 2, self.called(token, true))
        } else if after.starts_with('(') && length > 1 {
            (length, self.called(token, false))
        } else {
            (length, self.name(token, after.starts_with('*'), before.ends_with('(')))
        }
    }

    /// Text between backticks: a name, or a piece of C.
    fn code(&mut self, code: &str) -> String {
        if code.starts_with("loop_") || code.starts_with("LOOP_") {
            self.words(code)
        } else {
            italic(code)
        }
    }

    /// A function; `empty`: there is no text between its parentheses.
    fn called(&mut self, name: &str, empty: bool) -> String {
        let known = name != self.own && self.header.find(name).is_some();
        if known {
            self.see.push(format!("{name}(3)"));
        }
        match (known, empty) {
            (true, true) => bold(name) + "(3)",
            (_, true) => bold(name) + "()",
            (_, false) => bold(name),
        }
    }

    fn name(&mut self, token: &str, is_pattern: bool, is_argument: bool) -> String {
        if let Some(entry) = self.header.find(token) {
            if token == self.own || self.here.contains(&token) || entry.is_constant() || is_argument
            {
                return bold(token);
            }
            self.see.push(format!("{token}(3)"));
            return bold(token) + "(3)";
        }
        let letters = token.trim_start_matches('-');
        let is_constant = letters
            .starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
            && letters.chars().all(|letter| !letter.is_ascii_lowercase())
            && (letters.len() > 2 || is_pattern)
            && !["ASCII", "API", "CPU", "TCP"].contains(&letters);
        let is_type = letters.ends_with("_t");
        let is_field = letters.contains('_') && !is_type;
        if is_constant || is_type {
            bold(token)
        } else if is_field && letters.chars().all(|letter| !letter.is_ascii_uppercase()) {
            italic(token)
        } else {
            escaped(token)
        }
    }
}

fn name_length(text: &str) -> usize {
    text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len())
}

/// `(2)`: the section of a manual page.
fn section(text: &str) -> Option<&str> {
    text.get(..3).filter(|text| matches!(text.as_bytes(), [b'(', b'1'..=b'8', b')']))
}

pub(crate) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

pub(crate) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// Escapes the special characters of roff. A `-` that begins a word is a minus.
pub(crate) fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('^', "\\(ha").replace('~', "\\(ti");
    if let Some(rest) = text.strip_prefix('-') { format!("\\-{rest}") } else { text }
}

/// A line of C, shown unchanged.
pub(crate) fn verbatim(text: &str) -> String {
    guarded(
        &escaped(text)
            .replace('-', "\\-")
            .replace("\\\\-", "\\-")
            .replace('\'', "\\(aq")
            .replace('`', "\\(ga"),
    )
}

/// A line that roff takes for text, whatever its first character is.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.into() }
}
