//! ringloop(7): text written by hand (`ringloop.7.in`), with parts of the header.
//!
//! A line of the template that is `@name@` is replaced: `@title@`, `@library@`, `@conventions@`, `@functions@`, `@types@`,
//! `@constants@`, and `@program FILE@`, which is a file beside the template.

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
            Some("types") => out += &list(manual, |entry| !entry.is_function() && !entry.is_constant() && entry.name != "loop_t"),
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
    Typesetter { header: manual.header, own: "", see: Vec::new() }
}

fn conventions(manual: &Manual<'_>) -> String {
    let mut set = typesetter(manual);
    let items = manual.header.conventions.iter();
    items.map(|(heading, text)| tagged(&mut set, &bold(heading), std::slice::from_ref(text))).collect()
}

/// The functions, by the sections of the header.
fn functions(manual: &Manual<'_>) -> String {
    let mut out = String::new();
    for section in &manual.header.sections {
        if section.entries.iter().any(Entry::is_function) {
            let title = section.title[..1].to_uppercase() + &section.title[1..];
            out += &format!(".SS {title}\n");
            section.entries.iter().filter(|entry| entry.is_function()).for_each(|entry| out += &line(entry));
        }
    }
    out
}

fn list(manual: &Manual<'_>, is_wanted: impl Fn(&Entry) -> bool) -> String {
    manual.header.entries().filter(|entry| is_wanted(entry)).map(line).collect()
}

fn line(entry: &Entry) -> String {
    format!(".TP\n.BR {} (3)\n{}\n", entry.name, escaped(&summary(&entry.words)))
}

/// Those of no section: each comment once, for all the constants that stand below it.
fn constants(manual: &Manual<'_>) -> String {
    let mut set = typesetter(manual);
    let mut out = String::new();
    let mut entries = manual.header.sections[0].entries.iter().filter(|entry| entry.is_constant()).peekable();
    while let Some(entry) = entries.next() {
        let Kind::Constant(text) = &entry.kind else { unreachable!("they were chosen") };
        let text = text.trim_start_matches("#define ");
        let end = if text[entry.name.len()..].starts_with('(') { text.find(')').map_or(0, |at| at + 1) } else { entry.name.len() };
        let tag = bold(&text[..end]);
        match entries.peek() {
            Some(next) if next.words == entry.words => out += &format!(".TP\n{tag}\n.TQ\n").replacen(".TP\n", if out.ends_with(".TQ\n") { "" } else { ".TP\n" }, 1),
            _ if out.ends_with(".TQ\n") => out += &tagged(&mut set, &tag, &entry.words).replacen(".TP\n", "", 1),
            _ => out += &tagged(&mut set, &tag, &entry.words),
        }
    }
    out
}
