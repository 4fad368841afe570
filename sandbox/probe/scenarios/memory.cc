// Executable memory.

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

// A page of the program's text that nothing runs.
extern "C" char pageOfText[];
__asm__(
    ".pushsection .text\n"
    ".p2align 12\n"
    "pageOfText: .fill 4096, 1, 0xc3\n"
    ".popsection\n");

void* ownPage() {
  return mmap(nullptr, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

long mapped(int protection, int flags, int fd) {
  void* page = mmap(nullptr, PAGE, protection, flags, fd, 0);
  return page == MAP_FAILED ? -errno : 0;
}

}  // namespace

void addMemory(List& list) {
  constexpr const char* GROUP = "executable memory";
  list.add(GROUP, "writable and executable", [](const Targets&) {
    return mapped(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  });
  list.add(GROUP, "executable", [](const Targets&) {
    return mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  });
  list.add(GROUP, "written, then executable", [](const Targets&) {
    void* page = ownPage();
    if (page == MAP_FAILED) return -long(errno);
    *static_cast<volatile char*>(page) = char(0xc3);
    return answer(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
  });
  list.add(GROUP, "by protection key", [](const Targets&) {
    void* page = ownPage();
    if (page == MAP_FAILED) return -long(errno);
    return call(SYS_pkey_mprotect, page, PAGE, PROT_READ | PROT_EXEC, -1);
  });
  list.add(GROUP, "text made writable and executable", [](const Targets&) {
    auto text = reinterpret_cast<uintptr_t>(&addMemory) & ~(PAGE - 1);
    return answer(
        mprotect(reinterpret_cast<void*>(text), PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
  });
  list.add(GROUP, "of a memfd", [](const Targets&) {
    long fd = memfdWith("\xc3");
    return fd < 0 ? fd : mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd);
  });
  for (int fd : {16, 17, 18, 19, 29}) {
    list.add("executable memory of an fd", "fd " + std::to_string(fd),
             [=](const Targets&) { return mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd); });
    list.add("executable memory of an fd", "fd " + std::to_string(fd) + ", shared",
             [=](const Targets&) { return mapped(PROT_READ | PROT_EXEC, MAP_SHARED, fd); });
    list.add("executable memory of an fd", "fd " + std::to_string(fd) + ", changed later",
             [=](const Targets&) {
               void* page = mmap(nullptr, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
               if (page == MAP_FAILED) return -long(errno);
               return answer(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
             });
  }
  list.add(GROUP, "System V", [](const Targets&) {
    long id = call(SYS_shmget, IPC_PRIVATE, PAGE, IPC_CREAT | 0700);
    return id < 0 ? id : call(SYS_shmat, id, nullptr, SHM_EXEC);
  });
  list.plain(GROUP, "by personality", SYS_personality, READ_IMPLIES_EXEC);
  list.add(GROUP, "shared", [](const Targets&) {
    return mapped(PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1);
  });
  list.add(GROUP, "that grows", [](const Targets&) {
    return mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1);
  });
  // It worked, too, when the process dies of writing to it: that depends on how this was compiled.
  list.add(GROUP, "the stack", [](const Targets&) {
    char onStack;
    auto page = reinterpret_cast<uintptr_t>(&onStack) & ~(PAGE - 1);
    return call(SYS_mprotect, page, PAGE, PROT_READ | PROT_EXEC | PROT_GROWSDOWN);
  });
  list.add(GROUP, "moved and changed", [](const Targets&) {
    void* page = ownPage();
    if (page == MAP_FAILED) return -long(errno);
    void* moved = mremap(page, PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) return -long(errno);
    return answer(mprotect(moved, 4 * PAGE, PROT_READ | PROT_EXEC));
  });
  list.add(GROUP, "text written over", [](const Targets&) {
    void* page = mmap(pageOfText, PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (page == MAP_FAILED) return -long(errno);
    return answer(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
  });
  // Harmless: the same bytes elsewhere, and those that follow them in the program's file.
  list.add("more of the program's file as text", "mremap", [](const Targets&) {
    void* moved = mremap(pageOfText, PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? -long(errno) : 0;
  });
  list.add("page zero", "mmap", [](const Targets&) {
    void* page =
        mmap(nullptr, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return page == MAP_FAILED ? -errno : 0;
  });
}

}  // namespace troupe::sandbox::probe
