#pragma once

#include <kj/string.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "broker/refusal.h"

namespace troupe::broker {

// One call of the KVM API that must not fail; `name` is what the kernel's documentation calls it.
// Repeats what a signal interrupted. Throws TRP-kvm-003.
template <typename Argument>
int kvmCall(int fd, unsigned long request, Argument argument, kj::StringPtr name) {
  for (;;) {
    int result = ::ioctl(fd, request, argument);
    if (result >= 0) return result;
    int error = errno;
    if (error == EINTR) continue;
    refuse("TRP-kvm-003: the host's KVM refuses ", name, ": ", strerror(error));
  }
}

}  // namespace troupe::broker
