#include "sandbox/tool/call_site.h"

#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

// Of this test itself, as it is loaded: a stack that is known, found as from outside.
namespace troupe::test {

std::vector<uint64_t> seen;

__attribute__((noinline)) void look(uint64_t base) {
  auto here = reinterpret_cast<uint64_t>(&&label);
label:
  seen = {here - base};
  // Read as another process would: between the frames lies what no code of ours may touch.
  std::vector<uint64_t> words(400);
  iovec to{words.data(), words.size() * sizeof(uint64_t)};
  iovec from{__builtin_frame_address(0), to.iov_len};
  ssize_t got = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
  words.resize(got > 0 ? got / sizeof(uint64_t) : 0);
  for (uint64_t word : words)
    if (word > base && word - base < 1 << 28) seen.push_back(word - base);
}

__attribute__((noinline)) void inner(uint64_t base) {
  look(base);
  asm volatile("" ::: "memory");
}

__attribute__((noinline)) void outer(uint64_t base) {
  inner(base);
  asm volatile("" ::: "memory");
}

}  // namespace troupe::test

namespace troupe::sandbox {
namespace {

TEST(CallSite, FindsWhoCalledWhomInAnExecutable) {
  test::outer(getauxval(AT_PHDR) - 64);
  auto symbols = ProgramSymbols::read("/proc/self/exe");
  ASSERT_NE(nullptr, symbols);
  auto callers = symbols->callers(test::seen);
  ASSERT_LE(3u, callers.size());
  EXPECT_EQ("troupe::test::look", callers[0]);
  EXPECT_EQ("troupe::test::inner", callers[1]);
  EXPECT_EQ("troupe::test::outer", callers[2]);
}

TEST(CallSite, OtherFilesHaveNoSymbols) {
  EXPECT_EQ(nullptr, ProgramSymbols::read("/proc/self/maps"));
  EXPECT_EQ(nullptr, ProgramSymbols::read("/nowhere"));
  EXPECT_EQ(nullptr, ProgramSymbols::read("/"));
}

TEST(CallSite, AddressesThatAreNonsenseFindNobody) {
  auto symbols = ProgramSymbols::read("/proc/self/exe");
  ASSERT_NE(nullptr, symbols);
  EXPECT_TRUE(symbols->callers({}).empty());
  EXPECT_TRUE(symbols->callers({~uint64_t{0}, 0, 7}).empty());
}

TEST(CallSite, NamesTheLibrarysFunctionAndOurs) {
  EXPECT_EQ(
      "kj::UnixEventPort::wait for troupe::serve",
      callSite({"epoll_wait", "kj::UnixEventPort::wait", "kj::run", "troupe::serve", "main"}));
  EXPECT_EQ("troupe::Ring::pop", callSite({"read", "troupe::Ring::pop", "kj::run"}));
  EXPECT_EQ("__libc_start_main", callSite({"brk", "__libc_start_main"}));
  EXPECT_EQ("", callSite({}));
}

}  // namespace
}  // namespace troupe::sandbox
