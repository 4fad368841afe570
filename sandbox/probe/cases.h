#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/probe/attempt.h"

namespace troupe::sandbox::probe {

// Numbers below this are tried; Linux's end before 480, and what comes after is refused alike.
constexpr int64_t NUMBER_COUNT = 512;

// Calls that satisfy a verdict and calls that break one of its conditions. Arguments without a
// condition are ~0: no address, no fd, no length, so that a call that is let through does nothing.
struct VerdictCases {
  RawCall passing;
  std::vector<std::vector<RawCall>> violating;  // for each condition, several ways to break it
};
VerdictCases casesOf(const Verdict& verdict);

// Every number, with arguments that are all zero and all ones.
std::vector<RawCall> everyNumber();

// The same numbers by the i386 and the x32 convention, with the upper half set that the kernel does
// not look at, and some that no table has.
std::vector<RawCall> everyNumberOtherwise();

struct NamedRequest {
  const char* name;
  uint64_t request;
};
// ioctl requests that devices, terminals, sockets, disks and KVM understand.
const std::vector<NamedRequest>& knownRequests();
// A few requests of each of the 256 types, none of them among the known ones.
std::vector<uint64_t> everyRequestType();

RawCall ioctlCall(uint64_t fd, uint64_t request);

std::string syscallName(int64_t number);

// For messages: "ioctl(0x3, 0x5401, …)".
std::string describe(const RawCall& call);

}  // namespace troupe::sandbox::probe
