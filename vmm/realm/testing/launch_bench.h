#pragma once

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/files/temporary_folder.h"
#include "vmm/realm/launch.h"

namespace troupe::realm::testing {

// A bundle, and what its launcher says beside it.
class Bench {
 public:
  Bench() {
    setenv("XDG_RUNTIME_DIR", path.c_str(), 1);
    std::filesystem::create_directory(path + "/b");
    write("b/k", "kernel");
    write("b/one.img", std::string(1024, 'a'));
    write("b/two.img", std::string(1024, 'b'));
    write("mine.img", std::string(512, 'c'));
    info.setUrl(path + "/b");
    terms.net.kind = NetChoice::Kind::NONE;
  }

  void write(const std::string& name, const std::string& text) { folder.write(name, text); }
  void cfg(const std::string& text) { write("b/guest.cfg", text); }
  void typed(const std::string& text) { write("b/troupe.json", text); }

  // One of LaunchInfo.blockDevices.
  void hand(const char* id, BlockMode mode, const char* file, int flags) {
    ids.push_back(id);
    modes.push_back(mode);
    fds.add(kj::AutoCloseFd(open((path + "/" + file).c_str(), flags | O_CLOEXEC)));
  }

  VmStart start() {
    auto blocks = info.initBlockDevices(ids.size());
    for (size_t i = 0; i < ids.size(); i++) {
      blocks[i].setId(ids[i]);
      blocks[i].setMode(modes[i]);
    }
    GuestPlace place{kj::str("guest"), 3, kj::str(path.c_str(), "/serial"),
                     kj::str(path.c_str(), "/console")};
    return startOf(info.asReader(), LaunchFds{nullptr, fds.releaseAsArray()}, place, terms);
  }

  std::string refusal() {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { start(); })) {
      return exception->getDescription().cStr();
    }
    return "";
  }

  troupe::testing::TemporaryFolder folder;
  const std::string& path = folder.path;
  capnp::MallocMessageBuilder message;
  LaunchInfo::Builder info = message.initRoot<LaunchInfo>();
  RealmTerms terms;
  std::vector<const char*> ids;
  std::vector<BlockMode> modes;
  kj::Vector<kj::AutoCloseFd> fds;
};

inline bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace troupe::realm::testing
