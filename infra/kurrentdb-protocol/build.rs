//! Compiles the protocol without `protoc`.

use std::error::Error;

const FILES: [&str; 3] = ["shared.proto", "streams.proto", "gossip.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // Clients and servers bring their own transport.
    tonic_build::configure()
        .build_transport(false)
        .bytes(["."])
        .include_file("protocol.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
