//! Passes options to the linker of the static binary.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_static = target("FEATURE").split(',').any(|feature| feature == "crt-static");
    let is_glibc = target("OS") == "linux" && target("ENV") == "gnu";
    if is_static && is_glibc && has_relr() {
        // Relative relocations take 24 bytes each, otherwise about 3 bits.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if is_static && is_glibc && has_lld() {
        // Functions with the same machine code exist once.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// Returns whether the linker is the LLD that comes with the toolchain: since Rust 1.90 on x86-64, unless another is set.
fn has_lld() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some();
    let x86_64 = "x86_64-unknown-linux-gnu";
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let is_default = !is_set("RUSTC_LINKER") && !flags.contains("fuse-ld") && !flags.contains("linker");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(output) = std::process::Command::new(rustc).arg("--print=sysroot").output() else { return false };
    let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let lld = format!("{root}/lib/rustlib/{x86_64}/bin/gcc-ld/ld.lld");
    is_default && env::var("TARGET").as_deref() == Ok(x86_64) && std::path::Path::new(&lld).exists()
}

/// Returns whether the C library can read packed relocations, as glibc can since 2.36.
fn has_relr() -> bool {
    let Ok(output) = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let numbers = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.is_some_and(|version: (u32, u32)| version >= (2, 36))
}
