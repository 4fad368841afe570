#include "vmm/actors/siblings.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

namespace troupe {
namespace {

constexpr pid_t NOBODY = -1;  // who is looked at

// A process that does nothing, with the namespaces of this one.
struct Idler {
  Idler() {
    KJ_SYSCALL(pid = fork());
    if (pid != 0) return;
    for (;;)
      pause();
  }
  ~Idler() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  // It has ended, and nobody has asked how.
  void end() {
    kill(pid, SIGKILL);
    siginfo_t info;
    KJ_SYSCALL(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
  }
  pid_t pid;
};

TEST(Siblings, WhoeverSharesANamespaceIsFound) {
  Idler idler;
  auto namespaces = sandbox::namespacesOf(idler.pid);
  Siblings siblings;
  siblings.add(idler.pid, namespaces);
  auto others = siblings.of(NOBODY, namespaces);
  ASSERT_EQ(others.size(), 1u);
  EXPECT_EQ(others[0].inodes[0], namespaces.inodes[0]);
  EXPECT_EQ(siblings.of(idler.pid, namespaces).size(), 0u) << "it is not its own sibling";
}

TEST(Siblings, OfOneThatHasEndedTheNumbersAreAnybodys) {
  Idler idler;
  auto namespaces = sandbox::namespacesOf(idler.pid);
  Siblings siblings;
  siblings.add(idler.pid, namespaces);
  idler.end();
  // Its user and pid namespaces are its own until somebody asks how it ended.
  for (auto& other : siblings.of(NOBODY, namespaces)) {
    for (auto kind : {sandbox::NamespaceKind::NET, sandbox::NamespaceKind::MOUNT})
      EXPECT_EQ(other.inodes[size_t(kind)], 0u);
  }
  waitpid(idler.pid, nullptr, 0);
  for (auto& other : siblings.of(NOBODY, namespaces))
    EXPECT_EQ(std::count(std::begin(other.inodes), std::end(other.inodes), 0), 7);
}

TEST(Siblings, ThoseThatEndAreNotKeptForGood) {
  Idler living;
  auto namespaces = sandbox::namespacesOf(living.pid);
  Siblings siblings;
  siblings.add(living.pid, namespaces);
  // Of processes that are gone, of whom nobody has said so.
  for (int i = 0; i < 1000; i++)
    siblings.add(-2 - i, namespaces);
  EXPECT_LE(siblings.count(), 64u);
  auto others = siblings.of(NOBODY, namespaces);
  EXPECT_TRUE(std::any_of(others.begin(), others.end(), [&](auto& other) {
    return other.inodes[0] == namespaces.inodes[0];
  })) << "who lives is known";
}

TEST(Siblings, OneThatIsForgottenIsNoneAnyMore) {
  Idler one, other;
  auto namespaces = sandbox::namespacesOf(one.pid);
  Siblings siblings;
  siblings.add(one.pid, namespaces);
  siblings.add(other.pid, namespaces);
  siblings.add(one.pid, namespaces);
  EXPECT_EQ(siblings.of(NOBODY, namespaces).size(), 2u);
  siblings.forget(one.pid);
  EXPECT_EQ(siblings.of(NOBODY, namespaces).size(), 1u);
  EXPECT_EQ(siblings.of(other.pid, namespaces).size(), 0u);
}

}  // namespace
}  // namespace troupe
