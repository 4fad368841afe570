#include "sandbox/watch/call_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "sandbox/call_shape.h"
#include "sandbox/errno_text.h"
#include "sandbox/syscall_names.h"

namespace troupe::sandbox {
namespace {

constexpr size_t MOST_RECORDS = 8192;
constexpr size_t STACK_WORDS = 512;  // that are looked at
constexpr size_t MOST_ADDRESSES = 40;
constexpr uint64_t LOWEST_ADDRESS = 0x10000;
constexpr uint64_t PROGRAM_HEADERS = 64;  // their offset in the files our linker writes

bool trace(__ptrace_request request, pid_t thread, uintptr_t address, uintptr_t data) {
  return ptrace(request, thread, address, data) >= 0;
}

kj::AutoCloseFd makeFile(kj::StringPtr folder, kj::String& path) {
  for (uint32_t attempt = 0;; attempt++) {
    path = kj::str(folder, "/calls-", getpid(), "-", attempt);
    int fd = open(path.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd >= 0) return kj::AutoCloseFd(fd);
    if (errno == EEXIST && attempt < 100000) continue;
    KJ_FAIL_REQUIRE(kj::str("TRP-jail-050: the calls of actors cannot be written down in \"", path,
                            "\": ", errnoText(errno)));
  }
}

uint64_t programHeadersOf(pid_t process) {
  int fd = open(kj::str("/proc/", process, "/auxv").cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  kj::AutoCloseFd file(fd);
  uint64_t entries[64][2] = {};
  ssize_t n = read(file, entries, sizeof(entries));
  for (ssize_t i = 0; i < n / ssize_t(sizeof(entries[0])); i++) {
    if (entries[i][0] == AT_PHDR) return entries[i][1];
  }
  return 0;
}

// Addresses differ from run to run, and no rule is about one: all are the same one here. What is too
// small for one stays, as do null pointers.
uint64_t withoutAddress(char letter, uint64_t value) {
  return letter == 'x' && value >= LOWEST_ADDRESS ? 1 : value;
}

}  // namespace

kj::Maybe<WatchRequest> coverageFromEnvironment() {
  const char* folder = secure_getenv(COVERAGE_VARIABLE);
  if (folder == nullptr || *folder == 0) return nullptr;
  return WatchRequest{WatchMode::COUNT, kj::str(folder)};
}

bool CallWatch::Key::operator==(const Key& other) const {
  return profile == other.profile && filter == other.filter && mainThread == other.mainThread &&
         number == other.number && instruction == other.instruction &&
         memcmp(arguments, other.arguments, sizeof(arguments)) == 0;
}

size_t CallWatch::Hash::operator()(const Key& key) const {
  uint64_t hash = reinterpret_cast<uintptr_t>(key.profile) + key.filter * 2 + key.mainThread;
  auto mix = [&](uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15 + (hash >> 29); };
  mix(key.number);
  mix(key.instruction);
  for (uint64_t argument : key.arguments)
    mix(argument);
  return hash;
}

CallWatch::CallWatch(const WatchRequest& request)
    : mode(request.mode), file(makeFile(request.folder, path)) {
  auto header = recordHeader();
  kj::FdOutputStream(file.get()).write(header.data(), header.size());
}

CallWatch::~CallWatch() noexcept(false) {
  flush();
}

const Profile& CallWatch::watched(const Profile& profile) {
  for (const auto& [original, known] : profiles) {
    if (&known->profile() == &profile) return profile;
  }
  auto& known = profiles[&profile];
  if (known.get() == nullptr) known = kj::heap<WatchedProfile>(profile, mode);
  return known->profile();
}

void CallWatch::see(const Profile& watched, kj::StringPtr executable, pid_t process, pid_t thread) {
  unsigned long filter = 0;
  user_regs_struct registers = {};
  bool known = trace(PTRACE_GETEVENTMSG, thread, 0, reinterpret_cast<uintptr_t>(&filter)) &&
               trace(PTRACE_GETREGS, thread, 0, reinterpret_cast<uintptr_t>(&registers));
  if (!known || filter == 0 || filter > watched.filterCount) return;
  // The launcher's own last step, in memory that is the launcher's.
  if (registers.orig_rax == SYS_execveat && filter == 1) return;

  const Image& image = imageOf(process);
  const char* name = syscallName(registers.orig_rax);
  const char* letters = callShape(name == nullptr ? "" : name).arguments;
  Key key = {
      &watched,
      uint32_t(filter),
      thread == process,
      registers.orig_rax,
      registers.rip,
      {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9}};
  key.instruction -= image.base;
  size_t count = strlen(letters);
  for (size_t i = 0; i < 6; i++) {
    if (callShape(name == nullptr ? "" : name).name[0] == 0) break;
    key.arguments[i] = i < count ? withoutAddress(letters[i], key.arguments[i]) : 0;
  }
  auto found = records.find(key);
  if (found == records.end()) {
    if (records.size() >= MOST_RECORDS) flush();
    CallRecord record;
    record.actor = watched.actor;
    record.program = std::string(executable.begin(), executable.size());
    record.stage = watched.filters[filter - 1].stage;
    record.mainThread = key.mainThread;
    record.syscall = int(key.number);
    memcpy(record.arguments, key.arguments, sizeof(record.arguments));
    record.stack = stackOf(process, image, registers.rip, registers.rsp);
    found = records.emplace(key, std::move(record)).first;
  }
  found->second.count++;
}

// The executable mapping that has the program headers in the file before it.
const CallWatch::Image& CallWatch::imageOf(pid_t process) {
  auto known = images.find(process);
  if (known != images.end()) return known->second;
  Image image = {};
  uint64_t headers = programHeadersOf(process);
  FILE* maps = fopen(kj::str("/proc/", process, "/maps").cStr(), "re");
  if (maps != nullptr) {
    KJ_DEFER(fclose(maps));
    char line[512];
    unsigned long begin, end;
    char rights[5];
    while (headers != 0 && fgets(line, sizeof(line), maps) != nullptr) {
      bool parsed = sscanf(line, "%lx-%lx %4s", &begin, &end, rights) == 3;
      if (!parsed || begin < headers - PROGRAM_HEADERS || rights[2] != 'x') continue;
      image = {headers - PROGRAM_HEADERS, begin, end};
      break;
    }
  }
  return images.emplace(process, image).first->second;
}

std::vector<uint64_t> CallWatch::stackOf(pid_t process, const Image& image, uint64_t instruction,
                                         uint64_t stackPointer) {
  std::vector<uint64_t> addresses;
  auto add = [&](uint64_t address) {
    bool inside = address >= image.begin && address < image.end;
    if (inside) addresses.push_back(address - image.base);
  };
  add(instruction);
  uint64_t words[STACK_WORDS];
  iovec local = {words, sizeof(words)};
  iovec remote = {reinterpret_cast<void*>(stackPointer), sizeof(words)};
  ssize_t n = process_vm_readv(process, &local, 1, &remote, 1, 0);
  // The stack may end before; it is at least as long as a page's rest.
  if (n < 0) {
    local.iov_len = remote.iov_len = 4096 - stackPointer % 4096;
    n = process_vm_readv(process, &local, 1, &remote, 1, 0);
  }
  for (ssize_t i = 0; i < n / ssize_t(sizeof(words[0])) && addresses.size() < MOST_ADDRESSES; i++)
    add(words[i]);
  return addresses;
}

void CallWatch::flush() {
  std::string text;
  for (const auto& [key, record] : records)
    text += recordLine(record);
  records.clear();
  kj::FdOutputStream(file.get()).write(text.data(), text.size());
}

}  // namespace troupe::sandbox
