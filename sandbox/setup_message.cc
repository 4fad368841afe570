#include "sandbox/setup_message.h"

#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protos/setup.capnp.h"
#include "sandbox/actor_setup.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3; Debian 12's headers are older
#endif

namespace troupe::sandbox {
namespace {

kj::ArrayPtr<const ProfileFd> fdsOf(const Profile& profile) {
  return kj::arrayPtr(profile.fds, profile.fdCount);
}

// The launcher makes this fd itself.
bool isSetup(const ProfileFd& fd) {
  return fd.handed && fd.number == SETUP_FD;
}

kj::uint handedCount(const ProfileFd& fd, kj::ArrayPtr<const HandedFd> fds) {
  kj::uint count = 0;
  for (const HandedFd& handed : fds) {
    if (handed.name == fd.name) count++;
  }
  return count;
}

const ProfileFd& findFd(const Profile& profile, kj::StringPtr name, const HandedFd& handed) {
  kj::Vector<kj::StringPtr> known;
  for (const ProfileFd& fd : fdsOf(profile)) {
    if (!fd.handed || isSetup(fd)) continue;
    if (handed.name == fd.name) return fd;
    known.add(fd.name);
  }
  KJ_FAIL_REQUIRE(kj::str("TRP-jail-004: the profile of ", profile.actor, " takes no fd \"",
                          handed.name, "\" for ", name, "; it takes ", kj::strArray(known, ", ")));
}

// A pipe that holds the whole message, its writing end closed; none when the message does not fit.
kj::Maybe<kj::AutoCloseFd> prefilledPipe(kj::ArrayPtr<const kj::byte> message) {
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd reading(ends[0]), writing(ends[1]);
  ssize_t n = write(writing, message.begin(), message.size());
  if (n != ssize_t(message.size())) return nullptr;
  return kj::mv(reading);
}

kj::AutoCloseFd sealedFile(kj::ArrayPtr<const kj::byte> message) {
  int fd = memfd_create("setup", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) {
    // An older kernel.
    KJ_SYSCALL(fd = memfd_create("setup", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  }
  if (fd < 0) KJ_FAIL_SYSCALL("memfd_create", errno);
  kj::AutoCloseFd file(fd);
  kj::FdOutputStream(file.get()).write(message.begin(), message.size());
  KJ_SYSCALL(lseek(file, 0, SEEK_SET));
  KJ_SYSCALL(fcntl(file, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
  return file;
}

}  // namespace

kj::Array<NumberedFd> numberFds(const Profile& profile, kj::StringPtr name,
                                kj::ArrayPtr<const HandedFd> fds) {
  kj::Vector<NumberedFd> numbered(fds.size() + 1);
  for (const HandedFd& handed : fds) {
    const ProfileFd& fd = findFd(profile, name, handed);
    KJ_REQUIRE(handed.index < fd.count,
               kj::str("TRP-jail-004: ", name, " got an fd \"", handed.name, "\" with index ",
                       handed.index, "; its profile has ", fd.count));
    int number = fd.number + handed.index;
    for (const NumberedFd& other : numbered) {
      KJ_REQUIRE(other.number != number, kj::str("TRP-jail-004: ", name, " got the fd \"",
                                                 handed.name, "\" (", handed.index, ") twice"));
    }
    KJ_REQUIRE(fcntl(handed.fd, F_GETFD) >= 0,
               kj::str("TRP-jail-004: the fd \"", handed.name, "\" for ", name, " is not open"));
    numbered.add(NumberedFd{handed.fd, number});
  }
  for (const ProfileFd& fd : fdsOf(profile)) {
    if (!fd.handed || isSetup(fd)) continue;
    kj::uint count = handedCount(fd, fds);
    KJ_REQUIRE(count == fd.count || fd.optional,
               kj::str("TRP-jail-004: ", name, " needs ", fd.count, " fd \"", fd.name,
                       "\" and got ", count));
    for (kj::uint i = 0; i < count; i++) {
      bool given = false;
      for (const NumberedFd& other : numbered)
        given |= other.number == int(fd.number + i);
      KJ_REQUIRE(given, kj::str("TRP-jail-004: ", name, " got ", count, " fds \"", fd.name,
                                "\" but none with index ", i));
    }
  }
  return numbered.releaseAsArray();
}

kj::AutoCloseFd makeSetup(const Profile& profile, kj::StringPtr name,
                          kj::ArrayPtr<const HandedFd> fds,
                          kj::Maybe<capnp::AnyPointer::Reader> config, bool withFilters,
                          const LayerPlan& layers, Part part) {
  capnp::MallocMessageBuilder message;
  auto setup = message.initRoot<Setup>();
  setup.setName(name);
  setup.setIsSuccessor(part == Part::SUCCESSOR);
  setup.setMdwe(layers.mdwe);

  auto counted = [&](const ProfileFd& fd) -> kj::uint {
    if (fd.made || isSetup(fd)) return 0;
    return fd.handed ? handedCount(fd, fds) : fd.count;
  };
  kj::Vector<const ProfileFd*> present;
  for (const ProfileFd& fd : fdsOf(profile)) {
    if (counted(fd) > 0) present.add(&fd);
  }
  auto slots = setup.initFds(present.size());
  for (kj::uint i = 0; i < present.size(); i++) {
    slots[i].setName(present[i]->name);
    slots[i].setNumber(present[i]->number);
    slots[i].setCount(counted(*present[i]));
  }

  if (withFilters && profile.filterCount > 1) {
    auto filters = setup.initFilters(profile.filterCount - 1);
    for (kj::uint i = 0; i < filters.size(); i++) {
      const ProfileFilter& filter = profile.filters[i + 1];
      filters[i].setStage(filter.stage);
      filters[i].setProgram(kj::arrayPtr(filter.program, filter.length).asBytes());
    }
  }
  setup.setIoUringOpcodes(
      kj::arrayPtr(profile.layers.ioUringOpcodes, profile.layers.ioUringOpcodeCount));
  setup.setIoUringSqeFlags(profile.layers.ioUringSqeFlags);
  KJ_IF_MAYBE (value, config) {
    setup.getConfig().set(*value);
  }

  auto words = capnp::messageToFlatArray(message);
  KJ_IF_MAYBE (pipe, prefilledPipe(words.asBytes())) {
    return kj::mv(*pipe);
  }
  return sealedFile(words.asBytes());
}

}  // namespace troupe::sandbox
