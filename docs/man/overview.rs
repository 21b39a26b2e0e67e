//! ringloop(7): text written by hand (`ringloop.7.in`), with parts of the header.
//!
//! A line of the template that is `@name@` is replaced: `@title@`, `@library@`, `@conventions@`,
//! `@functions@`, `@types@`, `@constants@`, and `@program FILE@`, which is a file beside the
//! template.

use std::path::Path;

use crate::header::{Entry, Kind};
use crate::page::{LIBRARY, Manual, tagged};
use crate::read;
use crate::words::{Typesetter, bold, escaped, summary, verbatim};

pub(crate) fn page(manual: &Manual<'_>, template: &str) -> (String, String) {
    let mut out = String::new();
    for line in read(template).lines() {
        let part = line.strip_prefix('@').and_then(|line| line.strip_suffix('@'));
        match part {
            None => out += &format!("{line}\n"),
            Some("title") => out += &manual.title("ringloop", 7),
            Some("library") => out += LIBRARY,
            Some("conventions") => out += &conventions(manual),
            Some("functions") => out += &functions(manual),
            Some("types") => out += &types(manual),
            Some("constants") => out += &constants(manual),
            Some(part) => {
                let file = part.strip_prefix("program ").expect("the template names a part");
                let file = Path::new(template).with_file_name(file);
                for line in read(file.to_str().expect("its name is text")).lines() {
                    out += &format!("{}\n", verbatim(line));
                }
            }
        }
    }
    ("ringloop.7".into(), out)
}

fn typesetter<'a>(manual: &'a Manual<'_>) -> Typesetter<'a> {
    Typesetter { header: manual.header, own: "", here: Vec::new(), see: Vec::new() }
}

fn conventions(manual: &Manual<'_>) -> String {
    let mut set = typesetter(manual);
    let items = manual.header.conventions.iter();
    items
        .map(|(heading, text)| tagged(&mut set, &bold(heading), std::slice::from_ref(text)))
        .collect()
}

/// The functions, by the sections of the header.
fn functions(manual: &Manual<'_>) -> String {
    let mut out = String::new();
    for section in &manual.header.sections {
        if section.entries.iter().any(Entry::is_function) {
            let title = section.title[..1].to_uppercase() + &section.title[1..];
            out += &format!(".SS {title}\n");
            out += &lines(section.entries.iter().filter(|entry| entry.is_function()));
        }
    }
    out
}

fn types(manual: &Manual<'_>) -> String {
    let is_type =
        |entry: &&Entry| !entry.is_function() && !entry.is_constant() && entry.name != "loop_t";
    lines(manual.header.entries().filter(is_type))
}

/// A list with a line for each entry.
fn lines<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let line = |entry: &Entry| {
        format!(".TP\n.BR {} (3)\n{}\n", entry.name, escaped(&summary(&entry.words)))
    };
    format!(".PD 0\n{}.PD\n", entries.map(line).collect::<String>())
}

/// The constants before the sections: each comment once, with all the constants below it.
fn constants(manual: &Manual<'_>) -> String {
    let mut set = typesetter(manual);
    let constants: Vec<&Entry> =
        manual.header.sections[0].entries.iter().filter(|entry| entry.is_constant()).collect();
    let groups = constants.chunk_by(|a, b| a.words == b.words);
    groups
        .map(|group| {
            let tags: Vec<String> = group.iter().map(|constant| tag(constant)).collect();
            tagged(&mut set, &tags.join("\n.TQ\n"), &group[0].words)
        })
        .collect()
}

/// A constant's name, with its parameter if it has one.
fn tag(constant: &Entry) -> String {
    let Kind::Constant(text) = &constant.kind else { unreachable!("it is a constant") };
    let parameter = text.contains(&format!("{}(n)", constant.name));
    bold(&constant.name) + if parameter { "(\\fIn\\fR)" } else { "" }
}
