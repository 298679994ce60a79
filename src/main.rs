//! The program's entry point. See the crate's documentation and `mailspool help`.
//!
//! The program defines C's `main` itself. The standard library's setup before its own `main` serves
//! long-lived processes and takes a tenth of a submission's time; `cli` does the needed part.

#![no_main]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// Runs the program and returns its exit status. The C library calls it with the process's arguments.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    let arguments = (0..usize::try_from(count).unwrap_or(0)).map(|at| {
        // SAFETY: there are `count` pointers to strings that end with a NUL and are never changed.
        let argument = unsafe { CStr::from_ptr(*arguments.add(at)) };
        OsString::from_vec(argument.to_bytes().to_vec())
    });
    c_int::from(mailspool::cli::main(arguments.collect()))
}
