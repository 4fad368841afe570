#pragma once

#include <cstddef>
#include <cstdint>

// Virtio-balloon on the wire (§5.5), in the spec's order and under its names.
namespace troupe::balloon {

constexpr uint64_t PAGE_BYTES = 4096;  // §5.5.6: whatever the guest's own page size is

// Feature bits, §5.5.3. MUST_TELL_HOST is not offered: a page that the guest takes back comes to
// life when it is touched, told or not.
constexpr uint64_t F_STATS_VQ = 1 << 1;
constexpr uint64_t F_DEFLATE_ON_OOM = 1 << 2;
constexpr uint64_t F_FREE_PAGE_HINT = 1 << 3;
constexpr uint64_t F_PAGE_POISON = 1 << 4;
constexpr uint64_t F_PAGE_REPORTING = 1 << 5;

struct BalloonConfigSpace {  // struct virtio_balloon_config, §5.5.4; little-endian
  uint32_t numPages;         // what the device wants
  uint32_t actual;           // what the driver has
  uint32_t freePageHintCmdId;
  uint32_t poisonVal;  // the driver's
};
static_assert(sizeof(BalloonConfigSpace) == 16, "layout fixed by §5.5.4");

// free_page_hint_cmd_id, §5.5.6.7: these two, or the number of a round.
constexpr uint32_t CMD_ID_STOP = 0;
constexpr uint32_t CMD_ID_DONE = 1;
constexpr uint32_t FIRST_CMD_ID = 2;

constexpr size_t STATISTIC_BYTES = 10;  // struct virtio_balloon_stat, §5.5.6.3: le16 tag, le64 val

}  // namespace troupe::balloon
