#pragma once

#include <kj/io.h>
#include <kj/string.h>

namespace troupe {

// The executables of the actors. They lie beside `troupe` itself; they are opened once, and from
// then on only run through these fds.
struct Programs {
  kj::AutoCloseFd broker;
  kj::AutoCloseFd devices;  // one for all small devices; its argv[0] chooses
  kj::AutoCloseFd front;
};

// Those in `folder`, or beside this executable. Throws a user error that names a missing one.
Programs openPrograms(kj::Maybe<kj::StringPtr> folder = nullptr);

// The second of them alone.
kj::AutoCloseFd openDevicesProgram();
// Another one like it. Throws a user error.
kj::AutoCloseFd openDevicesProgramAt(kj::StringPtr path);

// `troupe policy` and the compiler of profiles, which lies there too.
kj::AutoCloseFd openPolicyProgram(kj::Maybe<kj::StringPtr> folder = nullptr);

}  // namespace troupe
