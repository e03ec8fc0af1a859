//! `main` of the two targets is made a dynamic symbol, which a preloaded library can look up. A
//! program exports nothing by itself.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for target in ["counting-test", "primes-test"] {
        println!("cargo:rustc-link-arg-bin={target}=-Wl,--export-dynamic-symbol=main");
    }
}
