//! The program. See the crate's documentation, and `mailspool help`.
//!
//! It begins where C does. What the standard library does before its `main` is of use to long-lived
//! processes and a tenth of the time of a submission; what of it is needed, `cli` does.

#![no_main]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// The C library calls it with the arguments of the process.
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
