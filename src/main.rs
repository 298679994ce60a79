//! The program. See the crate's documentation, and `mailspool help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailspool::cli::main()
}
