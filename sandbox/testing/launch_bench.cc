// Prints what a jail costs: the time from launch() to a program that answers RPC, of one actor and
// of several started together, and that of attesting one. usage: launch_bench [ROUNDS]

#include <kj/debug.h>
#include <time.h>
#include <stdio.h>
#include <stdlib.h>

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

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure(Jail jail, int actorCount, int rounds) {
  JailBench bench({}, jail);
  std::vector<double> launched, started, ready, attested;
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
  }
  printf("jail %-3s  %d actors  launched %.2f ms  executed %.2f ms  answered %.2f ms",
         jail == Jail::ON ? "on" : "off", actorCount, median(launched), median(started),
         median(ready));
  if (jail == Jail::ON) printf("  attested %.2f ms", median(attested));
  printf("\n");
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
  return 0;
}
