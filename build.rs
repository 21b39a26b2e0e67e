//! Sets the SONAME of the shared library; with the feature `capi`, versions its symbols and
//! generates the C header from `src/capi`.
//!
//! The header goes to OUT_DIR; with RINGLOOP_WRITE_HEADER=1 also to `include/`, where the committed
//! one is. A test says when the two differ.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RINGLOOP_WRITE_HEADER");
    println!(
        "cargo::rustc-cdylib-link-arg=-Wl,-soname,libringloop.so.{}",
        env!("CARGO_PKG_VERSION_MAJOR")
    );
    // It installs a signal handler and a handler of forks, which must not be unloaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    #[cfg(feature = "capi")]
    {
        header::generate();
        versions::link();
    }
}

/// Symbol versions. The version script that rustc writes is anonymous, and no linker lets a named
/// one stand beside it: GNU ld refuses both, lld takes the first. So the shared library is linked
/// by GNU ld through a script that puts `ringloop.map` in its place. Where there is no GNU ld, it
/// is linked as ever, without versions.
#[cfg(feature = "capi")]
mod versions {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::{env, fs};

    pub(super) fn link() {
        println!("cargo::rerun-if-changed=ringloop.map");
        let Some(ld) = gnu_ld() else {
            println!(
                "cargo::warning=no GNU ld (ld.bfd) was found: the shared library has no symbol versions"
            );
            return;
        };
        let folder = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("ld");
        let script = format!(
            r#"#!/bin/sh
for argument do
    shift
    case $argument in
        --version-script=*) argument="--version-script=${{0%/*}}/ringloop.map" ;;
    esac
    set -- "$@" "$argument"
done
exec '{}' "$@"
"#,
            ld.display()
        );
        fs::create_dir_all(&folder).expect("OUT_DIR can be written");
        fs::copy("ringloop.map", folder.join("ringloop.map")).expect("OUT_DIR can be written");
        fs::write(folder.join("ld.bfd"), script).expect("OUT_DIR can be written");
        fs::set_permissions(folder.join("ld.bfd"), fs::Permissions::from_mode(0o755))
            .expect("the file is ours");
        println!("cargo::rustc-cdylib-link-arg=-fuse-ld=bfd");
        println!("cargo::rustc-cdylib-link-arg=-B{}", folder.display());
    }

    /// The GNU ld that the compiler driver would take.
    fn gnu_ld() -> Option<PathBuf> {
        println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
        let driver = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
        let name = Command::new(driver).arg("-print-prog-name=ld.bfd").output().ok()?.stdout;
        let ld = PathBuf::from(String::from_utf8(name).ok()?.trim_end());
        let version = Command::new(&ld).arg("--version").output().ok()?.stdout;
        version.starts_with(b"GNU ld").then_some(ld)
    }
}

#[cfg(feature = "capi")]
mod header {
    use std::path::Path;
    use std::{env, fs};

    use cbindgen::{Config, DocumentationStyle, Language, SortKey, Style};

    /// The sections of the header, in its order.
    const SECTIONS: [(&str, &str); 16] = [
        ("handles and callbacks", "types"),
        ("lifecycle", "lifecycle"),
        ("running", "running"),
        ("calls", "calls"),
        ("other threads", "threads"),
        ("readiness", "readiness"),
        ("completions", "completions"),
        ("files", "files"),
        ("sockets", "sockets"),
        ("operations with many results", "multi"),
        ("signals", "signals"),
        ("children", "children"),
        ("work off the loop", "executor"),
        ("inside another loop", "embedding"),
        ("seeing what happens", "introspection"),
        ("library", "library"),
    ];

    pub(super) fn generate() {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let sources = Path::new(&root).join("src/capi");
        println!("cargo::rerun-if-changed=src/capi");
        let mut header = prologue(&sources);
        for (title, file) in SECTIONS {
            header += &format!("\n\n/* ==== {title} ==== */\n\n");
            let source = sources.join(file).with_extension("rs");
            header += &introduction(&source);
            header += section(&source).trim();
        }
        header += "\n\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* RINGLOOP_H */\n";
        let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("ringloop.h");
        fs::write(out, &header).expect("OUT_DIR can be written");
        if env::var_os("RINGLOOP_WRITE_HEADER").is_some_and(|value| value == "1") {
            fs::write(Path::new(&root).join("include/ringloop.h"), &header)
                .expect("include/ can be written");
        }
    }

    fn prologue(sources: &Path) -> String {
        let part = |name: &str| {
            env::var(name).expect("cargo sets it").parse::<u32>().expect("a version is numbers")
        };
        let number = part("CARGO_PKG_VERSION_MAJOR") << 16
            | part("CARGO_PKG_VERSION_MINOR") << 8
            | part("CARGO_PKG_VERSION_PATCH");
        fs::read_to_string(sources.join("prologue.h"))
            .expect("the prologue is there")
            .replace("@VERSION_NUMBER@", &format!("{number:#08x}"))
            .replace("@VERSION_STRING@", env!("CARGO_PKG_VERSION"))
    }

    /// What holds for all of a section: what the comment about its file says after the first
    /// paragraph.
    fn introduction(source: &Path) -> String {
        let text = fs::read_to_string(source).expect("src/capi can be read");
        let lines: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let Some(first) = lines.iter().position(|line| line.is_empty()) else {
            return String::new();
        };
        let lines: String = lines[first + 1..].iter().map(|line| format!(" *{line}\n")).collect();
        format!("/*\n{lines} */\n\n")
    }

    /// The types by which functions get what is C's, and the pointers and numbers that they are in
    /// C: a type with a parameter is a pointer to that, or that itself.
    const IN_C: [(&str, &str); 17] = [
        ("ConstLoopPtr", "*const loop_t"),
        ("LoopPtr", "*mut loop_t"),
        ("RemotePtr", "*mut loop_remote_t"),
        ("BuffersPtr", "*mut loop_buffers_t"),
        ("ConstMessagePtr", "*const msghdr"),
        ("MessagePtr", "*mut msghdr"),
        ("ConstBuffer", "*const c_void"),
        ("Buffer", "*mut c_void"),
        ("Arg", "*mut c_void"),
        ("Str", "*const c_char"),
        ("Array", "*const "),
        ("Room", "*mut "),
        ("Lasting", "*mut "),
        ("VersionedIn", "*const "),
        ("VersionedOut", "*mut "),
        ("Count", ""),
        ("Function", ""),
    ];

    /// A source with C's types. Every one of ours has a lifetime, which comes first.
    fn in_c(mut source: String) -> String {
        for (ours, theirs) in IN_C {
            while let Some(at) = source.find(&format!("{ours}<'")) {
                let end = at + source[at..].find('>').expect("a parameter list ends");
                let parameter =
                    source[at..end].split_once(", ").map_or("", |(_, parameter)| parameter);
                source.replace_range(at..=end, &format!("{theirs}{parameter}"));
            }
        }
        source
    }

    fn section(source: &Path) -> String {
        let in_c = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("section.rs");
        fs::write(&in_c, self::in_c(fs::read_to_string(source).expect("src/capi can be read")))
            .expect("OUT_DIR can be written");
        let mut config = Config {
            language: Language::C,
            style: Style::Both,
            sort_by: SortKey::None,
            documentation_style: DocumentationStyle::Doxy,
            no_includes: true,
            usize_is_size_t: true,
            line_length: 120,
            tab_width: 4,
            ..Config::default()
        };
        config.function.sort_by = Some(SortKey::None);
        // Types that no function of their own section uses.
        config.export.include =
            ["loop_handle_t", "loop_callback_t", "loop_release_t"].map(String::from).to_vec();
        config.export.rename.insert("Loop".into(), "loop_t".into());
        for name in ["addrinfo", "io_uring_sqe", "iovec", "msghdr", "sockaddr", "statx"] {
            config.export.rename.insert(name.into(), format!("struct {name}"));
        }
        config.export.exclude = ["io_uring_sqe".into()].to_vec();
        let mut header = Vec::new();
        cbindgen::Builder::new()
            .with_config(config)
            .with_src(in_c)
            .generate()
            .expect("src/capi can be read as C")
            .write(&mut header);
        String::from_utf8(header).expect("the source is UTF-8")
    }
}
