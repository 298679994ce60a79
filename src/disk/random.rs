//! Random octets, by one system call. The library behind `uuid` looks for the C library's function
//! while the program runs, does not find it in one that is linked statically, and opens two devices.

/// Random octets, for names that no other process chooses.
#[allow(unsafe_code)]
pub fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: no more octets are written than there are.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(got) {
        Ok(16) => bytes,
        _ => uuid::Uuid::new_v4().into_bytes(),
    }
}
