//! Linker options of the shared object.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A library with threads and thread-locals must stay when dlclose(3) is called.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // cargo-c sets the name itself.
    if std::env::var_os("CARGO_FEATURE_CAPI").is_none() {
        let part = |name: &str| std::env::var(name).unwrap_or_default();
        let major = part("CARGO_PKG_VERSION_MAJOR");
        let minor = part("CARGO_PKG_VERSION_MINOR");
        // Each 0.x release has a separate ABI.
        let suffix = match major.as_str() {
            "0" => format!("{major}.{minor}"),
            _ => major,
        };
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmailstow.so.{suffix}");
    }
}
