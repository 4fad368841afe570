#pragma once

#include <cstdint>

// The most that a replay may need, for whoever asks for it and whoever gives it.
namespace troupe {

// What --record-limit allows, and the first message.
constexpr uint64_t MOST_RECORDING_BYTES = (uint64_t(4) << 30) + (1 << 20);
constexpr uint64_t MOST_FLIGHT_BYTES =
    MOST_RECORDING_BYTES + MOST_RECORDING_BYTES / 2 + (uint64_t(17) << 20);
constexpr uint64_t MOST_ANSWER_BYTES = uint64_t(4) << 30;

}  // namespace troupe
