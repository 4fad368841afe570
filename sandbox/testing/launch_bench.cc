// Prints what a jail costs: the time from launch() to a program that answers RPC, of one actor and
// of several started together, that of attesting one, what the filter costs a system call, and what
// it costs to be told why an actor died: of a start, of a thread, of a system call.
// usage: launch_bench [ROUNDS]

#include <kj/debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <vector>

#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

double least(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure(Jail jail, int actorCount, int rounds) {
  JailBench bench({}, jail);
  std::vector<double> launched, started, ready, attested, read;
  for (int round = 0; round < rounds; round++) {
    kj::Vector<Actor> actors;
    double begin = now();
    for (int i = 0; i < actorCount; i++)
      actors.add(bench.launch({"sample0", "enter run at once"}));
    launched.push_back(now() - begin);
    for (Actor& actor : actors)
      actor.child->started().wait(bench.scope());
    started.push_back(now() - begin);
    for (Actor& actor : actors)
      actor.sample.helloRequest().send().wait(bench.scope());
    ready.push_back(now() - begin);
    if (jail == Jail::OFF) continue;
    begin = now();
    for (Actor& actor : actors) {
      requireAttested("sample0", attest(SAMPLE_PROFILE, actor.child->pid(), {Stage::RUN}));
    }
    attested.push_back(now() - begin);
    // Of all at once, as `troupe` does it; nothing is read without CAP_SYS_ADMIN.
    begin = now();
    auto readings = KJ_MAP(actor, actors) {
      return actor.child->readFilters().ignoreResult();
    };
    kj::joinPromises(kj::mv(readings)).wait(bench.scope());
    read.push_back(now() - begin);
  }
  printf(
      "jail %-3s  %d actors  launched %.2f ms  executed %.2f ms (least %.2f)  answered %.2f ms "
      "(least %.2f)",
      jail == Jail::ON ? "on" : "off", actorCount, median(launched), median(started),
      least(started), median(ready), least(ready));
  if (jail == Jail::ON) {
    printf("  attested %.2f ms  filters read %.2f ms (least %.2f)", median(attested), median(read),
           least(read));
  }
  printf("\n");
}

// The time from launch() to an actor in `run` with two more threads.
double startWithThreads(JailBench& bench) {
  double begin = now();
  Actor actor = bench.launch();
  auto placing = actor.sample.placeRequest();
  placing.setHandle(bench.event());
  placing.send().wait(bench.scope());
  for (int i = 0; i < 2; i++)
    actor.sample.startThreadRequest().send().wait(bench.scope());
  auto entering = actor.sample.enterRequest();
  entering.setStage("run");
  entering.send().wait(bench.scope());
  return now() - begin;
}

double callNs(JailBench& bench) {
  Actor actor = bench.launch();
  auto placing = actor.sample.placeRequest();
  placing.setHandle(bench.event());
  placing.send().wait(bench.scope());
  auto entering = actor.sample.enterRequest();
  entering.setStage("run");
  entering.send().wait(bench.scope());
  return KJ_ASSERT_NONNULL(bench.tryCall(actor, "eventfd-writes")) / 2e4;
}

// In turn, and the least of all, so that what else the machine does falls on neither.
void measureFilter(int rounds) {
  std::vector<double> call[2];
  for (int round = 0; round < rounds; round++) {
    for (int turn : {0, 1}) {
      int jailed = (round + turn) % 2;
      JailBench bench({}, jailed != 0 ? Jail::ON : Jail::OFF);
      call[jailed].push_back(callNs(bench));
    }
  }
  printf("eventfd write  without filter %.1f ns (median %.1f)  with filter %.1f ns (median %.1f)\n",
         least(call[0]), median(call[0]), least(call[1]), median(call[1]));
}

// Likewise.
void measureReports(int rounds) {
  std::vector<double> start[2], threads[2], call[2];
  for (int round = 0; round < rounds; round++) {
    for (int turn : {0, 1}) {
      int told = (round + turn) % 2;
      JailBench bench(LaunchFaults{told != 0 ? 0 : uint32_t{LaunchFaults::EXIT_REPORT}});
      {
        double begin = now();
        Actor actor = bench.launch({"sample0", "enter run at once"});
        actor.sample.helloRequest().send().wait(bench.scope());
        start[told].push_back(now() - begin);
      }
      threads[told].push_back(startWithThreads(bench));
      call[told].push_back(callNs(bench));
    }
  }
  for (int told : {0, 1}) {
    printf("deaths %s  answered %.3f ms  in run with two threads %.3f ms  eventfd write %.1f ns\n",
           told != 0 ? "told    " : "not told", least(start[told]), least(threads[told]),
           least(call[told]));
  }
}

}  // namespace
}  // namespace troupe::sandbox::testing

int main(int count, char** arguments) {
  using troupe::sandbox::Jail;
  int rounds = count > 1 ? atoi(arguments[1]) : 100;
  for (int actors : {1, 4, 8}) {
    troupe::sandbox::testing::measure(Jail::OFF, actors, rounds);
    troupe::sandbox::testing::measure(Jail::ON, actors, rounds);
  }
  troupe::sandbox::testing::measureFilter(rounds);
  troupe::sandbox::testing::measureReports(rounds);
  return 0;
}
