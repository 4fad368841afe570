#pragma once

// Mistakes that a fuzz build (--config=fuzz) can be told to make, so that a test can show that each
// is found. Everywhere else isPlanted() is the constant false: no code of them is in a binary that
// ships (//tests/fuzz:not_planted_test looks).
namespace troupe::fuzz {

enum class Bug {
  DOUBLE_FETCH,         // a descriptor's length is used from another load than was checked
  INDIRECT_LENGTH,      // an indirect table is believed to be as long as it says
  USED_RING_OVERRUN,    // the used index is not taken modulo the size
  DESCRIPTOR_LOOP,      // nobody counts the descriptors of a chain
  ANSWERED_TWICE,       // an empty answer is put into the used ring twice
  SECTOR_OVERFLOW,      // a request's end is computed before it is known to fit 64 bits
  READ_ONLY,            // a disk is not asked whether it may be written
  MAPPING_OUT_OF_FILE,  // an image's table is believed that names a place behind its file
  USED_LENGTH,          // the status counts though the data before it is not complete
  ERROR_IGNORED,        // a transfer that failed is answered as done
  SHORT_TRANSFER,       // what is left of a transfer goes on where it began
  VOLATILE_COPY,        // a write to a volatile disk forgets what it does not cover
  STATUS_ORDER,         // DRIVER_OK starts a device whose features were never agreed on
  PAGE_OUTSIDE_RAM,     // a page is given back without a look at whether it is RAM
  STATISTICS_LENGTH,    // as many statistics are kept as the guest sends
  CHECKSUM_PLACE,       // a frame's checksum may lie outside of it, or in its Ethernet header
  SPOOFED_SOURCE,       // a frame's source is not looked at
  RECEIVED_LENGTH,      // a receive buffer counts as filled to its end
  LAYER_COUNT,          // a profile has as many layers as its compiler says
  FD_TAKEN,             // an fd is placed without a look at what is there
  CONFIG_BOUNDS,        // what a device says of its configuration is copied wherever it says
  CREDIT_OVERRUN,       // a stream's sender is not held to the credit it was given
  EARLY_DATA,           // data is taken for a stream that nobody has accepted yet
  UNKNOWN_PORT,         // a control message is for a port that a console does not have
  PAGE_FORGOTTEN,       // one page of 256 that a driver names is not given back
  CREDIT_FORGOTTEN,     // what a socket took at once is not told to the guest
  KERNEL_PAST_RAM,      // a kernel needs a beginning in RAM, and no end
  INITRD_ON_KERNEL,     // an initrd may lie where the kernel does
  ITEM_LENGTH,          // an item of a Zircon boot image is believed to be as long as it says
  LONG_NAME,            // a client's name of a device is passed on however long it is
  ANY_METHOD,           // metrics are for every method of HTTP
  EVENT_LENGTH,         // an event of a recording is believed to be as long as it says
  RAM_UPON_RAM,         // pieces of RAM may overlap
  ANY_CALL,             // a client of realms may make any call
  CALLS_UNBOUNDED,      // nobody counts a client's calls
  KEPT_LENGTH,          // a request in quarantine is believed to be as long as it says
};

#ifdef TROUPE_FUZZ
// Whether the environment variable TROUPE_PLANTED names it: "double-fetch".
bool isPlanted(Bug bug);
#elif defined(TROUPE_PLANTED_BUGS)
// Mistakes that are always made, for tests that show that each is noticed
// (//devices:devices_with_a_bug).
static constexpr bool isPlanted(Bug bug) {
  for (Bug one : {TROUPE_PLANTED_BUGS})
    if (one == bug) return true;
  return false;
}
#else
constexpr bool isPlanted(Bug) {
  return false;
}
#endif

}  // namespace troupe::fuzz
