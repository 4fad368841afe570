#include "sandbox/limits/last_use.h"

#include <dirent.h>
#include <kj/common.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/limits/small_file.h"

namespace troupe::sandbox {

LastUse lookAtUse(pid_t pid) {
  LastUse use;
  if (DIR* dir = opendir(kj::str("/proc/", pid, "/fd").cStr())) {
    KJ_DEFER(closedir(dir));
    while (auto* entry = readdir(dir))
      use.openFiles += entry->d_name[0] != '.';
  }
  KJ_IF_MAYBE (status, readSmallFile(kj::str("/proc/", pid, "/status"))) {
    const char* peak = strstr(status->cStr(), "\nVmPeak:");
    if (peak != nullptr) use.addressSpace = strtoull(peak + strlen("\nVmPeak:"), nullptr, 10) << 10;
  }
  return use;
}

}  // namespace troupe::sandbox
