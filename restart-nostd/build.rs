//! Links `restart-static` by the linker script of the architecture.

use std::env;
use std::path::Path;

fn main() {
    let directory = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let scripts = Path::new(&directory).join("../linker-scripts");
    let script = scripts.join(format!("restart-{arch}.ld"));
    println!("cargo:rerun-if-changed={}", scripts.display());
    for argument in [
        // rustc links a position-independent executable; there is nobody to load it.
        "--no-dynamic-linker".into(),
        // What is relocated stands in the file as for the address in the script.
        "--apply-dynamic-relocs".into(),
        "--build-id=none".into(),
        format!("--script={}", script.display()),
        format!("--library-path={}", scripts.display()), // for what the script includes
    ] {
        println!("cargo:rustc-link-arg={argument}");
    }
}
