//! Names for callbacks: a closure's type, a C function's symbol where the dynamic linker knows it.

use std::fmt;

use crate::callback::Source;

/// Prints a callback: `prog::main::{{closure}}`, or `0x55d0c0ffee00 (tick)`, and `tick` alone with `{:#}`.
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

/// The address, then the name of the symbol it lies in. A program exports its own only when linked with -rdynamic;
/// for others the file and the offset in it are given, as addr2line takes them.
#[cfg(feature = "capi")]
fn write_c(f: &mut fmt::Formatter<'_>, address: *mut libc::c_void) -> fmt::Result {
    use std::ffi::CStr;

    // SAFETY: all-zero is a valid Dl_info.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr takes any address, and writes to the struct it is given.
    if unsafe { libc::dladdr(address, &mut found) } == 0 {
        return write!(f, "{address:p}");
    }
    if !found.dli_sname.is_null() {
        // SAFETY: dladdr gives a C string that lives as long as the object is loaded; it is copied at once.
        let name = unsafe { CStr::from_ptr(found.dli_sname) };
        let name = name.to_string_lossy();
        return if f.alternate() { f.write_str(&name) } else { write!(f, "{address:p} ({name})") };
    }
    write!(f, "{address:p}")?;
    if !found.dli_fname.is_null() {
        // SAFETY: as above.
        let file = unsafe { CStr::from_ptr(found.dli_fname) };
        return write!(f, " ({}+{:#x})", file.to_string_lossy(), address as usize - found.dli_fbase as usize);
    }
    Ok(())
}
