//! Links `libckpt.so` so that it needs no other library and binds its own symbols itself.

fn main() {
    for argument in ["-Bsymbolic", "-zrelro", "-znow", "--build-id=none", "--soname=libckpt.so"] {
        println!("cargo:rustc-link-arg={argument}");
    }
}
