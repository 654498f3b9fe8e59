//! Gives back the library's pages that only its start needed: 16 MB of code and tables.

use std::ffi::{c_int, c_void};

/// Let the kernel forget the pages of the library that holds `function`, as far as they are the file's.
///
/// What is used again is mapped again from the file, most often still in memory: about a microsecond a page.
/// Where the kernel refuses, nothing changes.
pub fn release_pages(function: *const c_void) {
    let mut address = function as usize;
    // SAFETY: the callback gets the address of `address`, which lives during the call.
    unsafe { libc::dl_iterate_phdr(Some(release_if_it_holds), (&raw mut address).cast()) };
}

/// For each loaded library: return whether it was the one, which ends the search.
unsafe extern "C" fn release_if_it_holds(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    wanted: *mut c_void,
) -> c_int {
    // SAFETY: the loader gives a library with as many headers as it says; `wanted` is release_pages's.
    let (base, headers, wanted) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info.dlpi_addr as usize, headers, *wanted.cast::<usize>())
    };
    let segments = headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
    let segments = segments.map(|h| (base + h.p_vaddr as usize, h.p_memsz as usize, h.p_flags));
    let holds = |(start, size, _): (usize, usize, u32)| (start..start + size).contains(&wanted);
    if !segments.clone().any(holds) {
        return 0;
    }
    // A segment that may be written, or could be at the start, has data that the file has not.
    for (start, size, _) in segments.filter(|(_, _, flags)| flags & libc::PF_W == 0) {
        // SAFETY: sysconf reads a constant.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let first = start / page * page;
        // SAFETY: the pages of a private mapping that was never written are the file's.
        unsafe {
            libc::madvise(
                first as *mut c_void,
                start + size - first,
                libc::MADV_DONTNEED,
            )
        };
    }
    1
}
