//! The contents of the header: its conventions, and in sections its functions, types and constants,
//! each with its comment.
//!
//! The parser reads the form that build.rs writes, not C in general.

/// Paragraphs of a comment, each one line.
pub(crate) type Words = Vec<String>;

pub(crate) struct Header {
    pub(crate) version: String,
    /// "Rules for all functions": the headings and their texts.
    pub(crate) conventions: Vec<(String, String)>,
    /// The first has no title: it has the items before the sections.
    pub(crate) sections: Vec<Section>,
}

pub(crate) struct Section {
    pub(crate) title: String,
    /// The comment of the section itself.
    pub(crate) words: Words,
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) words: Words,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Function(Prototype),
    /// `typedef result (*name)(parameters)`
    Callback(Prototype),
    Struct(Vec<Field>),
    /// Another typedef, unchanged.
    Type(String),
    /// `#define`, unchanged.
    Constant(String),
}

pub(crate) struct Prototype {
    pub(crate) result: String,
    pub(crate) parameters: Vec<Variable>,
}

pub(crate) struct Field {
    pub(crate) variable: Variable,
    pub(crate) words: Words,
}

/// `before` ends with the type; `after` is the `[length]` of an array.
pub(crate) struct Variable {
    pub(crate) before: String,
    pub(crate) name: String,
    pub(crate) after: String,
}

impl Header {
    pub(crate) fn parse(text: &str) -> Header {
        let (prologue, rest) = text.split_once("*/").expect("the header begins with a comment");
        let mut header = Header {
            version: between(text, "LOOP_VERSION_STRING \"", "\"").to_string(),
            conventions: conventions(prologue),
            sections: vec![Section {
                title: String::new(),
                words: Words::new(),
                entries: Vec::new(),
            }],
        };
        let mut lines = rest.lines().peekable();
        let mut words = Words::new();
        while let Some(line) = lines.next() {
            let section = header.sections.last_mut().expect("there is a section");
            if let Some(title) = line.strip_prefix("/* ==== ") {
                let title = title.trim_end_matches(" ==== */").to_string();
                header.sections.push(Section { title, words: Words::new(), entries: Vec::new() });
            } else if line.trim_start().starts_with("/*") {
                words = comment(line, &mut lines);
            } else if line.is_empty() {
                // A separate comment describes the section; the constants have taken the comment
                // that describes them.
                let of_constant = section
                    .entries
                    .last()
                    .is_some_and(|entry| entry.is_constant() && entry.words == words);
                if !of_constant {
                    section.words.append(&mut words);
                }
                words.clear();
            } else if let Some(define) = line.strip_prefix("#define LOOP_") {
                let name = define.split([' ', '(']).next().expect("it has a name");
                let kind = Kind::Constant(line.to_string());
                section.entries.push(Entry {
                    name: format!("LOOP_{name}"),
                    words: words.clone(),
                    kind,
                });
            } else if line.starts_with("typedef struct") && line.ends_with('{') {
                let mut fields = Vec::new();
                loop {
                    let line = lines.next().expect("the struct ends").trim();
                    if let Some(name) = line.strip_prefix("} ") {
                        let name = name.trim_end_matches(';').to_string();
                        section.entries.push(Entry {
                            name,
                            words: std::mem::take(&mut words),
                            kind: Kind::Struct(fields),
                        });
                        break;
                    }
                    let words = comment(line, &mut lines);
                    let declaration =
                        lines.next().expect("a comment has a field").trim().trim_end_matches(';');
                    fields.push(Field { variable: Variable::parse(declaration), words });
                }
            } else if line.starts_with("typedef ") || line.contains("loop_") {
                let mut declaration = line.to_string();
                while !declaration.ends_with(';') {
                    declaration += " ";
                    declaration += lines.next().expect("the declaration ends").trim();
                }
                section
                    .entries
                    .push(declared(declaration.trim_end_matches(';'), std::mem::take(&mut words)));
            } else {
                words.clear();
            }
        }
        header
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.sections.iter().flat_map(|section| &section.entries)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries().find(|entry| entry.name == name)
    }
}

impl Entry {
    pub(crate) fn is_function(&self) -> bool {
        matches!(self.kind, Kind::Function(_))
    }

    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.kind, Kind::Constant(_))
    }

    /// The comment of the entry, and those of its fields.
    pub(crate) fn all_words(&self) -> String {
        let fields = if let Kind::Struct(fields) = &self.kind { fields.as_slice() } else { &[] };
        let words = self.words.iter().chain(fields.iter().flat_map(|field| &field.words));
        words.map(|paragraph| format!("{paragraph}\n")).collect()
    }

    /// The types of a function, a callback or a struct.
    pub(crate) fn types(&self) -> impl Iterator<Item = &str> {
        let variables: Vec<&Variable> = match &self.kind {
            Kind::Function(prototype) | Kind::Callback(prototype) => {
                prototype.parameters.iter().collect()
            }
            Kind::Struct(fields) => fields.iter().map(|field| &field.variable).collect(),
            Kind::Type(_) | Kind::Constant(_) => Vec::new(),
        };
        variables.into_iter().flat_map(|variable| variable.before.split([' ', '*']))
    }
}

impl Variable {
    fn parse(text: &str) -> Variable {
        let (text, after) = text.find('[').map_or((text, ""), |at| text.split_at(at));
        let begin = text.rfind([' ', '*']).map_or(0, |at| at + 1);
        Variable {
            before: without_struct(&text[..begin]),
            name: text[begin..].into(),
            after: after.into(),
        }
    }
}

/// `struct loop_options_t` is `loop_options_t`, too.
fn without_struct(text: &str) -> String {
    text.replace("struct loop_", "loop_")
}

fn declared(text: &str, words: Words) -> Entry {
    let prototype = |result: &str, parameters: &str| Prototype {
        result: without_struct(result),
        parameters: match parameters {
            "void" => Vec::new(),
            _ => parameters.split(',').map(|parameter| Variable::parse(parameter.trim())).collect(),
        },
    };
    if let Some((result, rest)) = text.split_once("(*") {
        let (name, parameters) = rest.split_once(")(").expect("it is a pointer to a function");
        let result = result.trim_start_matches("typedef ");
        let kind = Kind::Callback(prototype(result, parameters.trim_end_matches(')')));
        return Entry { name: name.into(), words, kind };
    }
    if let Some(rest) = text.strip_prefix("typedef ") {
        let name = rest.rsplit(' ').next().expect("a typedef has a name").into();
        return Entry { name, words, kind: Kind::Type(format!("{text};")) };
    }
    let (head, parameters) = text.split_once('(').expect("it is a function");
    let Variable { before, name, .. } = Variable::parse(head);
    Entry {
        name,
        words,
        kind: Kind::Function(prototype(&before, parameters.trim_end_matches(')'))),
    }
}

/// The paragraphs of a comment that begins in `line`.
fn comment<'a>(line: &'a str, lines: &mut impl Iterator<Item = &'a str>) -> Words {
    let mut paragraphs = vec![String::new()];
    let mut line = line.trim_start().trim_start_matches("/*").trim_start_matches('*');
    loop {
        let (text, last) = line.split_once("*/").map_or((line, false), |(text, _)| (text, true));
        let text = text.trim();
        let paragraph = paragraphs.last_mut().expect("there is a paragraph");
        if text.is_empty() && !paragraph.is_empty() {
            paragraphs.push(String::new());
        } else {
            join(paragraph, text);
        }
        if last {
            break;
        }
        line = lines.next().expect("the comment ends").trim_start();
        line = if line == "*/" {
            line
        } else {
            line.strip_prefix('*').expect("each line begins with a star")
        };
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs
}

/// A heading begins three columns after the star, and its text thirteen.
fn conventions(prologue: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let lines =
        prologue.lines().skip_while(|line| !line.contains("Rules for all functions")).skip(1);
    for line in lines {
        let line = line.trim_start().trim_start_matches('*');
        let Some((heading, text)) = line.split_at_checked(13) else { continue };
        if !heading.starts_with("   ") {
            break;
        }
        if !heading.trim().is_empty() {
            found.push((heading.trim().into(), String::new()));
        }
        join(&mut found.last_mut().expect("the first line has a heading").1, text.trim());
    }
    found
}

fn join(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).expect("the header has it").1;
    rest.split_once(after).expect("the header has its end").0
}
