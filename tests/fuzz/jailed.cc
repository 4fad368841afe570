// Drives a device as it ships, in its jail: jailed DEVICE SECONDS | --inputs N | --replay FILE,
// with any number of --corpus FOLDER behind, and --keep-in FOLDER. The operations are those of the
// targets in a process; see jailed_driver.h.
//
// A finding is: a process that ends, by its filter, a fault, a trap or by itself; a call that is
// not answered in time; fds, threads or memory that grow; a request that is not answered after a
// reset.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/fuzz/jailed_corpus.h"
#include "tests/fuzz/jailed_driver.h"

namespace troupe::fuzz {
namespace {

// Keeps the input, and says how to try it again.
void tell(const std::string& name, uint64_t number, const std::string& what,
          const std::vector<Op>& ops) {
  std::string path = "/tmp/jailed-" + name + "-" + std::to_string(getpid()) + "-" +
                     std::to_string(number) + ".input";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(ops.data()), ops.size() * sizeof(Op));
  printf("FINDING: %s\n  replay: tools/fuzz %s --jailed --replay %s\n", what.c_str(), name.c_str(),
         path.c_str());
}

// What two threads race for is not the same twice, so it is tried often.
int replay(const std::string& name, JailedDriver& driver, const char* path) {
  constexpr int TIMES = 200;
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  auto ops = decode(kj::StringPtr(bytes.c_str(), bytes.size()).asBytes());
  for (int i = 0; i < TIMES; i++) {
    std::string what = driver.run(ops);
    if (what.empty()) continue;
    printf("%s: %s\n", name.c_str(), what.c_str());
    return 1;
  }
  printf("%s: nothing happened, %d times\n", name.c_str(), TIMES);
  return 0;
}

int drive(const std::string& name, JailedDriver& driver, JailedCorpus& corpus, uint64_t most,
          uint64_t seconds) {
  using Clock = std::chrono::steady_clock;
  auto begin = Clock::now();
  auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  Random random(1);
  uint64_t done = 0;
  uint64_t findings = 0;
  double shown = 0;
  while (done < most && (seconds == 0 || elapsed() < seconds) && findings < 20) {
    auto ops = corpus.next(random);
    std::string what = driver.run(ops);
    corpus.tried(ops, driver.reached());
    if (!what.empty()) {
      ++findings;
      tell(name, findings, what, ops);
    }
    ++done;
    if (elapsed() - shown > 5) {
      shown = elapsed();
      printf("%6.0f s  %lu inputs  %.0f inputs/s  coverage %zu  corpus %zu  findings %lu\n", shown,
             done, done / shown, corpus.edges(), corpus.size(), findings);
      fflush(stdout);
    }
  }
  printf("%s, jailed: %lu inputs in %.0f s, %.0f inputs/s, %lu processes, %lu racing writes, ",
         name.c_str(), done, elapsed(), done / elapsed(), driver.processes(), driver.racedWrites());
  if (coverage::IS_BUILT) printf("coverage %zu edges, corpus %zu, ", corpus.edges(), corpus.size());
  printf("%lu findings\n", findings);
  return findings == 0 ? 0 : 1;
}

int usage() {
  fprintf(stderr,
          "usage: jailed DEVICE SECONDS | --inputs N | --replay FILE [--corpus FOLDER]… [--keep-in "
          "FOLDER]\n");
  return 2;
}

int run(int argc, char** argv) {
  if (argc < 3) return usage();
  auto device = jailedDevice(argv[1]);
  if (device.get() == nullptr) return usage();
  std::string how = argv[2];
  int next = how == "--replay" || how == "--inputs" ? 4 : 3;
  if (argc < next) return usage();
  JailedCorpus corpus;
  for (; next + 1 < argc; next += 2) {
    std::string option = argv[next];
    if (option == "--corpus") {
      corpus.load(argv[next + 1]);
    } else if (option == "--keep-in") {
      corpus.load(argv[next + 1]);
      corpus.keepIn(argv[next + 1]);
    } else {
      return usage();
    }
  }
  if (next != argc) return usage();
  JailedDriver driver(*device);
  if (how == "--replay") return replay(argv[1], driver, argv[3]);
  if (how == "--inputs") {
    return drive(argv[1], driver, corpus, strtoull(argv[3], nullptr, 10), 0);
  }
  uint64_t seconds = strtoull(argv[2], nullptr, 10);
  return seconds > 0 ? drive(argv[1], driver, corpus, UINT64_MAX, seconds) : usage();
}

}  // namespace
}  // namespace troupe::fuzz

int main(int argc, char** argv) {
  return troupe::fuzz::run(argc, argv);
}
