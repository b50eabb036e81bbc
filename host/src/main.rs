//! Binary.
fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(command) if command == "__clickhouse" => tailwater::embedded::serve(args.collect()),
        _ => std::process::ExitCode::SUCCESS,
    }
}
