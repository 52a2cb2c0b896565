//! Compiles the protocol of the fake KurrentDB without `protoc`.

use std::error::Error;

const FILES: [&str; 4] = ["shared.proto", "streams.proto", "gossip.proto", "server_features.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_build::configure()
        .build_client(false)
        .bytes(["."])
        .include_file("protocol.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
