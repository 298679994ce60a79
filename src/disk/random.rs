//! Random octets from one system call. In a statically linked program, the library used by `uuid` looks up
//! the C library's function at run time, does not find it, and opens two devices instead.

/// Returns random octets, for names that must be unique among all processes.
#[allow(unsafe_code)]
pub fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: the length passed is the length of the array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(got) {
        Ok(16) => bytes,
        _ => uuid::Uuid::new_v4().into_bytes(),
    }
}
