//! Links the system's libpq into whatever links this crate.
fn main() {
    println!("cargo:rustc-link-lib=dylib=pq");
    println!("cargo:rerun-if-changed=build.rs");
}
