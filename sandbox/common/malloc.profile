# glibc's malloc in the main thread. threads.profile adds what other threads need.
run {
  rule { syscall: "brk" reason: "heap grows and shrinks" }
  rule {
    syscall: "mmap"
    arg { index: 2 flags: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_PRIVATE|MAP_ANONYMOUS" value: "MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE" }
    reason: "large blocks, and the heap where brk cannot grow"
  }
  rule { syscall: "munmap" reason: "frees large blocks" }
  rule { syscall: "mremap" arg { index: 3 value: "MREMAP_MAYMOVE" } reason: "realloc of large blocks" }
}
