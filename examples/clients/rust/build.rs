//! Generates code for the messages and services from the .proto files, without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../../proto";
    println!("cargo::rerun-if-changed={root}");
    let services = ["model_service", "tensor_service", "training_service"];
    let files = services.map(|name| format!("gradwire/v1/{name}.proto"));
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
