//! Memory that outlives this process: a sealed memfd, mapped, of which the keeper holds a duplicate.
//!
//! Owns the mapping. Promises that a store into it is there for the next life of the runtime, in the order of the
//! program, whatever kills this one; and that nobody can shrink it under the mapping. Never shared by two processes at
//! once: the next life gets it when this one is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first page holds words, which are written one by one; bytes follow.
pub const PAGE: usize = 4096;

/// A mapped memfd. Its first [`PAGE`] is words, the rest bytes.
#[derive(Debug)]
pub struct KeptMemory {
    memfd: OwnedFd,
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is as good on any thread.
unsafe impl Send for KeptMemory {}

// SAFETY: what a shared reference allows is reading, and words, which are atomics.
unsafe impl Sync for KeptMemory {}

impl KeptMemory {
    /// New memory of `len` bytes, all zero. Pages take room only once they are written to.
    ///
    /// # Errors
    /// The system refuses a memfd or its mapping.
    pub fn create(name: &str, len: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create(name, flags)?;
        rustix::fs::ftruncate(&memfd, len as u64)?;
        fcntl_add_seals(
            &memfd,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        )?;
        Self::map(memfd, len)
    }

    /// Memory that an earlier life made.
    ///
    /// # Errors
    /// It is not a sealed memfd of this length.
    pub fn open(memfd: OwnedFd, len: usize) -> io::Result<Self> {
        let sealed = rustix::fs::fcntl_get_seals(&memfd)?.contains(SealFlags::SHRINK);
        let size = u64::try_from(rustix::fs::fstat(&memfd)?.st_size).unwrap_or(0);
        if !sealed || size != len as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(memfd, len)
    }

    fn map(memfd: OwnedFd, len: usize) -> io::Result<Self> {
        if len <= PAGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours; the seal keeps the file
        // from shrinking under it.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                rights,
                MapFlags::SHARED,
                &memfd,
                0,
            )
        }?;
        let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memfd, at, len })
    }

    /// A second descriptor, to be stored.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.memfd.as_fd().try_clone_to_owned()
    }

    fn word_at(&self, index: usize) -> &AtomicU64 {
        assert!(index < PAGE / 8, "the first page has that many words");
        // SAFETY: within the first page of a live mapping, aligned as pages are, and only ever used as atomics.
        unsafe { AtomicU64::from_ptr(self.at.as_ptr().cast::<u64>().add(index)) }
    }

    /// One of the words in the first page.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        self.word_at(index).load(Ordering::SeqCst)
    }

    /// Writes a word after everything written before, and before everything written after.
    pub fn set_word(&self, index: usize, value: u64) {
        compiler_fence(Ordering::SeqCst);
        self.word_at(index).store(value, Ordering::SeqCst);
        compiler_fence(Ordering::SeqCst);
    }

    /// What follows the first page.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the live mapping without its first page; nobody else writes while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr().add(PAGE), self.len - PAGE) }
    }

    /// What follows the first page, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().add(PAGE), self.len - PAGE) }
    }

    /// Gives the room of whole pages back; they read as zeros from now on. Positions count as in [`Self::bytes`].
    pub fn give_back(&mut self, from: usize, len: usize) {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Refused, the pages merely stay.
        let _ = fallocate(&self.memfd, punch, (PAGE + from) as u64, len as u64);
    }
}

impl Drop for KeptMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}
