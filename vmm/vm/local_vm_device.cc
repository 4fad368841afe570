// Another process for a device of a running VM.

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/policy/profile_override.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::AutoCloseFd openDeviceProgram(kj::StringPtr path) {
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::DEVICE_PROGRAM, kj::str("the program ", quote(path), " ", why)).raise();
  };
  if (!path.startsWith("/")) refuse("is not named by an absolute path");
  int raw = open(path.cStr(), O_PATH | O_CLOEXEC);  // that suffices to execute it
  if (raw < 0) refuse(kj::str("cannot be opened: ", errnoText(errno)));
  kj::AutoCloseFd fd(raw);
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  if (!S_ISREG(info.st_mode)) refuse("is no regular file");
  if ((info.st_mode & 0111) == 0) refuse("is not executable");
  return fd;
}

bool isSameMemory(const sandbox::ProfileMemory& a, const sandbox::ProfileMemory& b) {
  return a.access == b.access && a.rangeCount == b.rangeCount &&
         (a.rangeCount == 0 || memcmp(a.ranges, b.ranges, a.rangeCount * sizeof(a.ranges[0])) == 0);
}

// What a running device cannot change any more.
void requireFit(const sandbox::Profile& next, const sandbox::Profile& now, kj::StringPtr path) {
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::DEVICE_PROFILE, kj::str("the profile ", quote(path), " ", why)).raise();
  };
  if (!isSameMemory(next.layers.memory, now.layers.memory)) {
    refuse("gives the device other memory of the guest's, which was settled when the VM began");
  }
  if (!next.layers.restart.always) {
    refuse("does not let the device be replaced (`restart`), and the one in force does");
  }
}

}  // namespace

uint16_t LocalVm::deviceNamed(kj::StringPtr name) {
  kj::Vector<kj::StringPtr> names;
  for (uint16_t i = 0; i < company.devices.size(); i++) {
    auto& actor = company.devices[i].actor;
    if (actor.get() == nullptr) continue;
    if (actor->name() == name) return i;
    names.add(actor->name());
  }
  UserError(codes::NO_SUCH_DEVICE,
            kj::str("VM ", quote(place->name()), " has no device ", quote(name),
                    names.size() == 0 ? kj::str("; it has none")
                                      : kj::str("; its devices are ", kj::strArray(names, ", "))))
      .raise();
}

kj::Promise<void> LocalVm::replaceDevice(kj::StringPtr name, NewBuild next) {
  requireGuest("given another process for a device");
  uint16_t index = deviceNamed(name);
  auto& device = company.devices[index];
  bool mayBe = false;
  KJ_IF_MAYBE (succession, device.succession) {
    mayBe = (*succession)->mayStandBeside();
  }
  if (!mayBe || supervisor == nullptr) {
    UserError(
        codes::NOT_REPLACEABLE,
        kj::str(device.actor->describe(), " cannot be replaced while its VM runs: ",
                device.succession == nullptr
                    ? "its profile has no `restart { policy: ALWAYS }`, or what it speaks with "
                      "cannot go on with another process"_kj
                    : "it is being recorded, and one process at a time writes that"_kj))
        .advice("see", kj::str("troupe policy show ", device.actor->profile().actor))
        .raise();
  }
  Succession::Change change;
  if (next.binary.size() > 0) change.executable = openDeviceProgram(next.binary);
  auto& ward = *KJ_ASSERT_NONNULL(supervisor);
  if (next.profile.size() == 0) return ward.exchange(index, kj::mv(change));
  if (stage.jail == sandbox::Jail::OFF) {
    UserError(codes::DEVICE_PROFILE, kj::str("VM ", quote(place->name()),
                                             " runs without jails, so no profile is in force"))
        .raise();
  }
  auto& profile = device.actor->profile();
  auto& builtIn = KJ_REQUIRE_NONNULL(builtInOf(profile.actor), "an actor without a profile");
  auto program = openPolicyProgram();
  auto& inForce = device.build->profiles().orDefault(stage.profiles);
  auto compiled =
      compileProfile(io, stage.launcher, program, next.profilePath, next.profile, builtIn,
                     next.mayBeLooser ? kj::Maybe<const ActorProfiles&>(nullptr) : inForce);
  return compiled.attach(kj::mv(program))
      .then([this, index, &builtIn, path = kj::mv(next.profilePath),
             change = kj::mv(change)](kj::Own<ActorProfiles> profiles) mutable {
        requireFit(profiles->of(builtIn), company.devices[index].build->profile, path);
        change.profiles = kj::mv(profiles);
        return KJ_REQUIRE_NONNULL(supervisor, "the VM is ending")->exchange(index, kj::mv(change));
      });
}

}  // namespace troupe
