//! Writes the manual pages: `man-pages HEADER TEMPLATE FOLDER`, from the root of the project. `make
//! man` runs the program.
//!
//! The text is that of the comments in `include/ringloop.h`. The beginning of a sentence determines
//! its section (result, errors, cost, threads, kernel version); other sentences stay in the
//! description. `words.rs` has the rules. The program is built by rustc without crates, so that
//! `make install` needs only the tools that build the library.

mod header;
mod overview;
mod page;
mod words;

use std::fs;
use std::path::Path;

use header::Header;
use page::Manual;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [header, template, folder] = &arguments[..] else {
        panic!("usage: man-pages HEADER TEMPLATE FOLDER")
    };
    let header = Header::parse(&read(header));
    let manual = Manual::new(&header, date());
    let folder = Path::new(folder);
    for (section, pages) in
        [("man3", manual.pages()), ("man7", vec![overview::page(&manual, template)])]
    {
        let folder = folder.join(section);
        // Pages of removed items are removed.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, text) in pages {
            fs::write(folder.join(name), text).expect("the folder can be written");
        }
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The date of the pages: SOURCE_DATE_EPOCH, or the newest date in a heading of the changelog; none
/// before the first release.
fn date() -> String {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return day(epoch.parse().expect("SOURCE_DATE_EPOCH is a number of seconds"));
    }
    let changelog = fs::read_to_string("CHANGELOG.md").unwrap_or_default();
    let words =
        changelog.lines().filter(|line| line.starts_with("## ")).flat_map(str::split_whitespace);
    let is_date = |word: &&str| word.len() == 10 && word.split('-').map(str::len).eq([4, 2, 2]);
    words.into_iter().find(is_date).unwrap_or_default().to_string()
}

/// The date of a moment in seconds since 1970.
fn day(epoch: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut day = epoch / 86400;
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    let february = 28 + u64::from(is_leap(year));
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        month += 1;
        if day < days {
            break;
        }
        day -= days;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}
