#pragma once

namespace troupe::console {

// The key that leaves a console on the user's own terminal: Ctrl-]. Typed twice, it reaches the
// guest once (detach_key.h).
constexpr unsigned char DETACH_KEY = 0x1d;

// Exit status of a console or serial actor whose user typed the detach key.
constexpr int DETACH_STATUS = 10;

}  // namespace troupe::console
