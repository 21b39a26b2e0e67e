//! The pages of section 3: one for each function and type; constants are links to the page that
//! explains them.

use std::collections::HashMap;

use crate::header::{Entry, Header, Kind, Prototype, Section, Variable};
use crate::words::{
    Clause, Sorted, Typesetter, as_sentence, bold, clauses, escaped, italic, sentences, summary,
    verbatim,
};

/// The greatest width of a line of the synopsis.
const WIDTH: usize = 71;
/// The page of a type that more functions take does not list all of them under SEE ALSO.
const USERS: usize = 20;

pub(crate) struct Manual<'a> {
    pub(crate) header: &'a Header,
    date: String,
    /// The meaning of an error that is listed without a description.
    meanings: HashMap<String, String>,
}

impl<'a> Manual<'a> {
    pub(crate) fn new(header: &'a Header, date: String) -> Manual<'a> {
        let mut meanings = HashMap::new();
        let errors = &header
            .conventions
            .iter()
            .find(|(heading, _)| heading == "Errors")
            .expect("the header has Errors")
            .1;
        let usual = sentences(errors).into_iter().find_map(|sentence| {
            sentence.strip_prefix("An error that is listed without a description means: ")
        });
        for clause in clauses(usual.expect("the header says what errors mean")) {
            if let Clause::Errors(names, words) = clause {
                meanings.extend(names.into_iter().map(|name| (name, words.clone())));
            }
        }
        Manual { header, date, meanings }
    }

    /// The names and the texts of the files.
    pub(crate) fn pages(&self) -> Vec<(String, String)> {
        let mut pages = Vec::new();
        for section in &self.header.sections {
            for entry in &section.entries {
                let text = match entry.kind {
                    Kind::Constant(_) => format!(".so {}\n", self.home(section, entry)),
                    Kind::Type(_) if entry.name == "loop_t" => ".so man7/ringloop.7\n".into(),
                    _ => self.page(section, entry),
                };
                pages.push((format!("{}.3", entry.name), text));
            }
        }
        pages
    }

    /// The page that explains a constant: that of the first entry in the section of the constant
    /// which mentions it, types before functions.
    fn home(&self, section: &'a Section, constant: &Entry) -> String {
        let in_section = |entry: &&'a Entry| {
            !entry.is_constant()
                && self.constants(&self.shown(entry)).any(|c| c.name == constant.name)
        };
        let mut candidates: Vec<&Entry> = section.entries.iter().filter(in_section).collect();
        candidates.sort_by_key(|entry| entry.is_function());
        match candidates.first() {
            Some(entry) if !section.title.is_empty() => format!("man3/{}.3", entry.name),
            _ => "man7/ringloop.7".into(),
        }
    }

    /// The entry, and the callbacks and structs that it takes.
    fn shown(&self, entry: &'a Entry) -> Vec<&'a Entry> {
        let mut shown = vec![entry];
        let mut next = 0;
        while next < shown.len() {
            for name in shown[next].types() {
                let Some(found) = self.header.find(name) else { continue };
                let is_new = shown.iter().all(|entry| entry.name != found.name);
                if is_new && matches!(found.kind, Kind::Callback(_) | Kind::Struct(_)) {
                    shown.push(found);
                }
            }
            next += 1;
        }
        shown
    }

    /// The constants that these entries mention: callbacks, those of all sections; other entries,
    /// those of their own section.
    fn constants(&self, shown: &[&'a Entry]) -> impl Iterator<Item = &'a Entry> {
        let mentioned = |entry: &'a Entry| {
            let is_callback = matches!(entry.kind, Kind::Callback(_));
            let is_own = move |section: &&'a Section| {
                section.entries.iter().any(|other| other.name == entry.name)
            };
            let sections =
                self.header.sections.iter().filter(move |section| is_callback || is_own(section));
            let words = entry.all_words();
            let is_mentioned =
                move |other: &&'a Entry| other.is_constant() && self.mentions(&words, &other.name);
            sections.flat_map(|section| &section.entries).filter(is_mentioned)
        };
        let mut found: Vec<&Entry> = Vec::new();
        for constant in shown.iter().flat_map(|entry| mentioned(entry)) {
            if found.iter().all(|other| other.name != constant.name) {
                found.push(constant);
            }
        }
        found.into_iter()
    }

    /// Whether these words name a constant: "LOOP_KIND_CALL and so on" names all that begin with
    /// LOOP_KIND_.
    fn mentions(&self, words: &str, constant: &str) -> bool {
        let family = &constant[..=constant.rfind('_').expect("it begins with LOOP_")];
        let has_family = family != "LOOP_"
            && self.header.entries().any(|other| {
                other.name.starts_with(family)
                    && words.contains(&format!("{} and so on", other.name))
            });
        let mut names =
            words.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        has_family || names.any(|name| name == constant)
    }

    pub(crate) fn title(&self, name: &str, section: u32) -> String {
        // Names are long, and must not be broken: no hyphens, no wide gaps.
        format!(
            ".TH {name} {section} \"{}\" \"ringloop {}\"\n.nh\n.ad l\n",
            self.date, self.header.version
        )
    }

    fn page(&self, section: &'a Section, entry: &'a Entry) -> String {
        let shown = self.shown(entry);
        let here = shown.iter().map(|entry| entry.name.as_str()).collect();
        let mut set = Typesetter { header: self.header, own: &entry.name, here, see: Vec::new() };
        let mut sorted = Sorted::default();
        sorted.add(&entry.words);
        if entry.is_function() {
            sorted.add(&section.words);
        }

        let mut out =
            String::from(".\\\" Written by docs/man from include/ringloop.h: do not edit it.\n");
        out += &self.title(&entry.name, 3);
        out += &format!(".SH NAME\n{} \\- {}\n", entry.name, escaped(&summary(&entry.words)));
        out += LIBRARY;
        out += ".SH SYNOPSIS\n.nf\n.B #include <ringloop.h>\n";
        for entry in shown.iter().rev() {
            out += ".P\n";
            out += &declaration(entry);
        }
        out += ".fi\n.SH DESCRIPTION\n";
        out += &paragraphs(&mut set, &sorted.description);
        for other in &shown {
            if other.name != entry.name {
                out += &format!(".SS {}\n", other.name);
                out += &paragraphs(&mut set, &other.words);
            }
            out += &fields(&mut set, other);
        }
        let mut constants = self.constants(&shown).peekable();
        if constants.peek().is_some() {
            out += ".SS Constants\n";
            constants.for_each(|constant| {
                out += &tagged(&mut set, &bold(&constant.name), &constant.words)
            });
        }
        if let Kind::Function(prototype) = &entry.kind {
            out += &self.answer(&mut set, prototype, &sorted);
            for (heading, sentences) in
                [("THREADS", &sorted.threads), ("COST", &sorted.cost), ("VERSIONS", &sorted.kernel)]
            {
                if !sentences.is_empty() {
                    out += &format!(".SH {heading}\n{}", set.paragraph(&sentences.join("\n")));
                }
            }
            if sorted.kernel.is_empty() {
                let kernel =
                    self.header.conventions.iter().find(|(heading, _)| heading == "Kernel");
                let text = kernel
                    .expect("the header has Kernel")
                    .1
                    .split(',')
                    .next()
                    .expect("there is a first part");
                out += &format!(".SH VERSIONS\n{text}.\n");
            }
        }
        out += &see_also(set.see, self.neighbours(section, entry), &entry.name);
        out
    }

    /// RETURN VALUE and ERRORS.
    fn answer(&self, set: &mut Typesetter<'_>, prototype: &Prototype, sorted: &Sorted) -> String {
        let mut out = String::new();
        let result = match prototype.result.trim() {
            _ if !sorted.result.is_empty() => sorted.result.clone(),
            _ if sorted.errors.is_empty() => Vec::new(),
            "loop_handle_t" => vec!["a handle.".into()],
            "int" => vec!["0.".into()],
            _ => Vec::new(),
        };
        if let Some((first, rest)) = result.split_first() {
            let values: Vec<&str> = first.split("; ").collect();
            let of_value = |value: &&str| {
                value
                    .split_once(": ")
                    .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_digit()))
            };
            out += ".SH RETURN VALUE\n";
            if values.len() > 1 && values.iter().all(of_value) {
                for value in values {
                    let (name, words) = value.split_once(": ").expect("it has a colon");
                    out += &tagged(set, &bold(name), &[as_sentence(words)]);
                }
                out += ".P\n";
            } else {
                out += &format!("{}() returns {}", bold(set.own), set.paragraph(first));
            }
            rest.iter().for_each(|sentence| out += &set.paragraph(sentence));
            if !sorted.errors.is_empty() {
                out +=
                    "On failure it returns a negative number, which is one of the errors below.\n";
            }
        }
        out + &self.errors(set, &sorted.errors)
    }

    fn errors(&self, set: &mut Typesetter<'_>, clauses: &[Clause]) -> String {
        // Error numbers with their meaning; without numbers, a sentence. Numbers with the same
        // meaning are joined.
        let mut items: Vec<(Vec<&str>, &str)> = Vec::new();
        for clause in clauses {
            let (names, words) = match clause {
                Clause::Words(words) => (Vec::new(), words.as_str()),
                Clause::Errors(names, words) if !words.is_empty() => {
                    (names.iter().map(String::as_str).collect(), words.as_str())
                }
                Clause::Errors(names, _) => {
                    let usual = names.iter().find_map(|name| self.meanings.get(name));
                    let usual = usual.unwrap_or_else(|| {
                        panic!("{}: the header does not explain {}", set.own, names.join(", "))
                    });
                    (names.iter().map(String::as_str).collect(), usual.as_str())
                }
            };
            match items.last_mut() {
                Some((others, same)) if *same == words && !names.is_empty() => others.extend(names),
                _ => items.push((names, words)),
            }
        }
        let mut out = String::new();
        for (index, (names, words)) in items.into_iter().enumerate() {
            let names: Vec<String> = names.into_iter().map(bold).collect();
            if index == 0 {
                out += ".SH ERRORS\n";
            } else if names.is_empty() {
                out += ".P\n";
            }
            out += &match names.is_empty() {
                true => set.paragraph(&as_sentence(words)),
                false => tagged(set, &names.join(", "), &[as_sentence(words)]),
            };
        }
        out
    }

    /// The other functions of a section; for a type, the functions that take it, and only those of
    /// its section if there are more than `USERS`.
    fn neighbours(&self, section: &'a Section, entry: &'a Entry) -> Vec<String> {
        let takes = |other: &&'a Entry| {
            entry.is_function()
                || self
                    .shown(other)
                    .iter()
                    .any(|shown| shown.types().any(|name| name == entry.name))
        };
        let functions = |entries: &mut dyn Iterator<Item = &'a Entry>| -> Vec<String> {
            let functions = entries.filter(|other| other.is_function());
            functions.filter(takes).map(|other| format!("{}(3)", other.name)).collect()
        };
        let all =
            if entry.is_function() { Vec::new() } else { functions(&mut self.header.entries()) };
        if (1..=USERS).contains(&all.len()) { all } else { functions(&mut section.entries.iter()) }
    }
}

pub(crate) const LIBRARY: &str = ".SH LIBRARY\nringloop\n.RI ( libringloop ,\\~ \\-lringloop )\n";

fn paragraphs(set: &mut Typesetter<'_>, paragraphs: &[String]) -> String {
    paragraphs.iter().map(|paragraph| set.paragraph(paragraph)).collect::<Vec<_>>().join(".P\n")
}

pub(crate) fn tagged(set: &mut Typesetter<'_>, tag: &str, words: &[String]) -> String {
    let text: Vec<String> = words.iter().map(|paragraph| set.paragraph(paragraph)).collect();
    format!(".TP\n{tag}\n{}", text.join(".IP\n"))
}

fn fields(set: &mut Typesetter<'_>, entry: &Entry) -> String {
    let Kind::Struct(fields) = &entry.kind else { return String::new() };
    fields.iter().map(|field| tagged(set, &italic(&field.variable.name), &field.words)).collect()
}

/// The declaration, for the synopsis.
fn declaration(entry: &Entry) -> String {
    match &entry.kind {
        Kind::Function(prototype) => {
            prototype_lines(&format!("{}{}", prototype.result, entry.name), prototype)
        }
        Kind::Callback(prototype) => {
            prototype_lines(&format!("typedef {}(*{})", prototype.result, entry.name), prototype)
        }
        Kind::Struct(fields) => {
            let mut out = format!("{}\n", bold(&format!("typedef struct {} {{", entry.name)));
            for field in fields {
                out += &format!("    {}\n", bold_variable(&field.variable, ";"));
            }
            out + &format!("{}\n", bold(&format!("}} {};", entry.name)))
        }
        Kind::Type(text) => format!("{}\n", bold(text)),
        Kind::Constant(text) => format!("{}\n", bold(&verbatim(text))),
    }
}

fn bold_variable(variable: &Variable, end: &str) -> String {
    let Variable { before, name, after } = variable;
    format!("\\fB{before}\\fI{name}\\fB{after}{end}\\fR")
}

/// A prototype; if it does not fit in a line, with its parameters aligned in several lines.
fn prototype_lines(head: &str, prototype: &Prototype) -> String {
    let parameters = &prototype.parameters;
    let length =
        |variable: &Variable| variable.before.len() + variable.name.len() + variable.after.len();
    let longest = parameters.iter().map(length).max().unwrap_or(4) + 2;
    // Under the parenthesis or, if that is too far to the right, on separate lines.
    let hangs = head.len() + 1 + longest > WIDTH;
    let indent = if hangs { 8 } else { head.len() + 1 };
    let mut out = format!("\\fB{head}(\\fR");
    let mut column = head.len() + 1;
    if parameters.is_empty() {
        out += "\\fBvoid);\\fR";
    }
    for (index, parameter) in parameters.iter().enumerate() {
        let end = if index + 1 == parameters.len() { ");" } else { "," };
        let space = usize::from(index > 0);
        if column + space + length(parameter) + end.len() > WIDTH || hangs && index == 0 {
            out += &format!("\n{}", " ".repeat(indent));
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out += &bold_variable(parameter, end);
        column += length(parameter) + end.len();
    }
    out + "\n"
}

/// The references, sorted by section and name, without the page itself; ringloop(7) is the last.
fn see_also(mut names: Vec<String>, neighbours: Vec<String>, own: &str) -> String {
    names.extend(neighbours);
    names.retain(|name| !name.starts_with(&format!("{own}(")));
    names.push("ringloop(7)".into());
    names.sort_by_key(|name| {
        let (name, section) = name.split_once('(').expect("a reference has a section");
        (section.to_string(), name.to_string())
    });
    names.dedup();
    let mut out = String::from(".SH SEE ALSO\n");
    for (index, name) in names.iter().enumerate() {
        let (name, section) = name.split_once('(').expect("a reference has a section");
        let end = if index + 1 == names.len() { "" } else { "," };
        out += &format!(".BR {name} ({section}{end}\n");
    }
    out
}
