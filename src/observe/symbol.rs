//! Names of callbacks, for reports: a closure's type, or a C function's symbol if one is found.
//!
//! A name is a help for people, not an identity. Looking one up may read a file, and allocates.

use std::fmt;

use crate::abi::source::Source;

/// Formats a callback: `prog::main::{{closure}}`, or `0x55d0c0ffee00 (tick)`, and only `tick` with
/// `{:#}`.
pub(crate) struct Symbol(pub(crate) Source);

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::Rust(name) => f.write_str(name),
            #[cfg(feature = "capi")]
            Source::C(function) => write_c(f, function.address),
        }
    }
}

/// The address, then the name of its symbol; without a symbol, the file and the offset in it, in
/// the form for addr2line.
#[cfg(feature = "capi")]
fn write_c(f: &mut fmt::Formatter<'_>, address: *mut libc::c_void) -> fmt::Result {
    match c::name(address as usize) {
        Some(name) if f.alternate() => f.write_str(&name),
        Some(name) => write!(f, "{address:p} ({name})"),
        None => write!(f, "{address:p}"),
    }
}

#[cfg(feature = "capi")]
mod c {
    //! Names of addresses: exported symbols from the dynamic linker, others from the symbol table
    //! of the file, unless it is stripped.

    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::path::Path;
    use std::rc::Rc;

    use object::{Object, ObjectSymbol};

    use crate::sys::c_library::{Linked, linked_at};

    thread_local! {
        /// The names already found by this thread. A trace uses the same few often.
        static NAMES: RefCell<HashMap<usize, Option<Rc<str>>>> = RefCell::default();
    }

    pub(super) fn name(address: usize) -> Option<Rc<str>> {
        let known = NAMES.try_with(|names| names.borrow().get(&address).cloned());
        if let Ok(Some(name)) = known {
            return name;
        }
        let name = find(address).map(Rc::from);
        let _ = NAMES.try_with(|names| names.borrow_mut().insert(address, name.clone()));
        name
    }

    fn find(address: usize) -> Option<String> {
        let Linked { symbol, file, base } = linked_at(address)?;
        if symbol.is_some() {
            return symbol;
        }
        let file = file?;
        // The path of the program is argv[0], which may not lead to the file.
        let in_file = |path: &str| in_symbol_table(Path::new(path), address, base);
        in_file(&file)
            .or_else(|| if file.contains(".so") { None } else { in_file("/proc/self/exe") })
            .or_else(|| Some(format!("{file}+{:#x}", address - base)))
    }

    /// The function at an address in a file that is mapped at `base`.
    fn in_symbol_table(file: &Path, address: usize, base: usize) -> Option<String> {
        let contents = std::fs::read(file).ok()?;
        let file = object::File::parse(&*contents).ok()?;
        let is_fixed = file.kind() == object::ObjectKind::Executable;
        let address = if is_fixed { address } else { address - base } as u64;
        let symbol =
            file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text).find(
                |symbol| (symbol.address()..symbol.address() + symbol.size()).contains(&address),
            )?;
        symbol.name().ok().map(str::to_owned)
    }
}
