#pragma once

namespace troupe::sandbox {

// A system call without libc: the kernel's answer, negative errno included. For code between clone
// and exec, which shares errno and everything else of libc with the process that cloned it.
inline long rawSyscall(long number, unsigned long a = 0, unsigned long b = 0, unsigned long c = 0,
                       unsigned long d = 0, unsigned long e = 0) {
  register unsigned long r10 __asm__("r10") = d;
  register unsigned long r8 __asm__("r8") = e;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}

template <typename T>
unsigned long word(T* pointer) {
  return reinterpret_cast<unsigned long>(pointer);
}

}  // namespace troupe::sandbox
