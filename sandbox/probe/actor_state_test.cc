// The fd table and the addresses of an actor's process. See actor_probe_test.cc.

#include <dirent.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>

#include "sandbox/attest.h"
#include "sandbox/probe/jail_stage.h"
#include "sandbox/probe/probe_bench.h"
#include "sandbox/probe/subject.h"

namespace troupe::sandbox::probe {
namespace {

std::vector<int> openFds(pid_t pid) {
  std::vector<int> numbers;
  DIR* dir = opendir(("/proc/" + std::to_string(pid) + "/fd").c_str());
  if (dir == nullptr) return numbers;
  while (dirent* entry = readdir(dir)) {
    if (entry->d_name[0] != '.') numbers.push_back(atoi(entry->d_name));
  }
  closedir(dir);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

TEST(JailProbe, JAIL02_FdTableIsTheProfiles) {
  ProbeBench bench(SUBJECT.profile);
  for (const JailStage& stage : stagesOfSubject()) {
    if (stage.name == "start" || stage.isThread()) continue;
    SCOPED_TRACE(stage.name);
    Running running = bench.startActor(stage.name, {});
    Greeting greeting;
    bench.waitUntilEntered(running, greeting);
    EXPECT_EQ(bench.expectedFds(stage.name), openFds(running.child->pid()));
    if (!bench.genuine()) continue;  // /dev/kvm is not for this user
    AttestOptions now;
    now.stage = stage.name == "run" ? Stage::RUN : Stage::READY;
    auto found = attest(SUBJECT.profile, running.child->pid(), now);
    for (const kj::String& difference : found.differences)
      ADD_FAILURE() << difference.cStr();
  }
}

TEST(JailProbe, JAIL03_TwoStartsHaveNoAddressInCommon) {
  ProbeBench bench(SUBJECT.profile);
  Greeting greetings[2];
  for (Greeting& greeting : greetings) {
    Running running = bench.startActor("start", {});
    bench.waitUntilEntered(running, greeting);
  }
  EXPECT_NE(greetings[0].text, greetings[1].text);
  EXPECT_NE(greetings[0].heap, greetings[1].heap);
  EXPECT_NE(greetings[0].stack, greetings[1].stack);
  EXPECT_NE(greetings[0].mapping, greetings[1].mapping);
}

}  // namespace
}  // namespace troupe::sandbox::probe
