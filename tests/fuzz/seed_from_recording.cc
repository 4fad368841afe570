// seed_from_recording KIND FILE FOLDER: inputs of the fuzz target KIND from a recording of `troupe
// run
// --record`, each a file in FOLDER.
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/fuzz/recording_ops.h"

int main(int argc, char** argv) {
  using namespace troupe;
  if (argc != 4) {
    fprintf(stderr, "usage: seed_from_recording KIND FILE FOLDER\n");
    return 2;
  }
  size_t count = 0;
  auto failure = kj::runCatchingExceptions([&] {
    RecordingReader recording(argv[2]);
    std::string kind = recording.checked([&] { return std::string(recording.head().getKind()); });
    KJ_REQUIRE(kind == argv[1], "the recording is of a device of another kind", kind, argv[1]);
    auto inputs = recording.checked([&] { return fuzz::opsOf(argv[1], recording.events()); });
    for (auto& ops : inputs) {
      std::string path = std::string(argv[3]) + "/recorded-" + std::to_string(count++);
      std::ofstream file(path, std::ios::binary);
      file.write(reinterpret_cast<const char*>(ops.data()), ops.size() * sizeof(fuzz::Op));
      KJ_REQUIRE(file.good(), "cannot be written", path.c_str());
    }
  });
  KJ_IF_MAYBE (exception, failure) {
    fprintf(stderr, "%s\n", exception->getDescription().cStr());
    return 1;
  }
  printf("%zu inputs\n", count);
  return 0;
}
