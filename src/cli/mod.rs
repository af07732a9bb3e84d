//! (being built)

pub mod check;

/// The program's entry.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
