//! Names for callbacks: a closure's type, a C function's symbol where the dynamic linker knows it.

use std::fmt;

use crate::abi::source::Source;

/// Prints a callback: `prog::main::{{closure}}`, or `0x55d0c0ffee00 (tick)`, and `tick` alone with
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

/// The address, then the name of the symbol it lies in; without one the file and the offset in it,
/// as addr2line takes them.
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
    //! Names of addresses: from the dynamic linker for what is exported, for the rest from the
    //! symbol table of the file, where it has not been stripped.

    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::path::Path;
    use std::rc::Rc;

    use object::{Object, ObjectSymbol};

    use crate::sys::c_library::{Linked, linked_at};

    thread_local! {
        /// What the thread has asked before. A trace asks for the same few again and again.
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
        // The program itself is known by how it was called, which need not be where it is.
        let in_file = |path: &str| in_symbol_table(Path::new(path), address, base);
        in_file(&file)
            .or_else(|| if file.contains(".so") { None } else { in_file("/proc/self/exe") })
            .or_else(|| Some(format!("{file}+{:#x}", address - base)))
    }

    /// The function in a file that an address lies in, when the file is mapped at `base`.
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
