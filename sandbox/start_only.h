#pragma once

namespace troupe::sandbox {

// Whether no profile may allow this system call, by its name, once an actor is ready: what makes a
// process, finds or makes anything by name, or changes what a jail is made of.
bool isForStartOnly(const char* syscall);

}  // namespace troupe::sandbox
