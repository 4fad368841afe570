// Fds that an actor holds, used for something else.

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {

void addFds(List& list) {
  constexpr const char* GROUP = "fds beyond their use";
  for (int fd : {2, 3}) {
    std::string name = fd == 2 ? " of the log" : " of fd 3";
    list.add(GROUP, "type into the terminal" + name, [=](const Targets&) {
      char x = 'x';
      return call(SYS_ioctl, fd, TIOCSTI, &x);
    });
    list.plain(GROUP, "take the terminal" + name, SYS_ioctl, fd, TIOCSCTTY, 1);
    list.plain(GROUP, "seals" + name, SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE);
    list.plain(GROUP, "size" + name, SYS_ftruncate, fd, 0);
    list.plain(GROUP, "lease" + name, SYS_fcntl, fd, F_SETLEASE, F_RDLCK);
    list.add(GROUP, "owner" + name,
             [=](const Targets& outside) { return call(SYS_fcntl, fd, F_SETOWN, outside.parent); });
    list.plain(GROUP, "peek at" + name, SYS_pread64, fd, nullptr, 0, 0);
  }
  list.plain(GROUP, "map the log", SYS_mmap, nullptr, PAGE, PROT_READ, MAP_SHARED, 2, 0);
  list.plain(GROUP, "listen on fd 3", SYS_listen, 3, 1);
  for (int fd : {16, 17, 19, 29}) {
    std::string name = " of fd " + std::to_string(fd);
    list.plain(GROUP, "seals" + name, SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE);
    list.plain(GROUP, "size" + name, SYS_ftruncate, fd, 1 << 30);
    list.plain(GROUP, "hole" + name, SYS_fallocate, fd, 3, 0, PAGE);
  }
}

}  // namespace troupe::sandbox::probe
