//! Prints the public items, one a line, from rustdoc's JSON: `list FILE`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).ok_or("which file?")?;
    let api = public_api::Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(false)
        .build()?;
    print!("{api}");
    Ok(())
}
