#include "sandbox/tool/call_site.h"

#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cstring>

// Of this test itself, as it is loaded: a stack that is known, found as from outside.
namespace troupe::test {

std::vector<uint64_t> seen;

__attribute__((noinline)) void look(uint64_t base) {
  auto here = reinterpret_cast<uint64_t>(&&label);
label:
  seen = {here - base};
  auto* words = static_cast<uint64_t*>(__builtin_frame_address(0));
  for (int i = 0; i < 200; i++) {
    uint64_t word;
    memcpy(&word, words + i, sizeof(word));
    if (word > base && word - base < 1 << 28) seen.push_back(word - base);
  }
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
