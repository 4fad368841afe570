// The machine, and parts of the kernel nobody needs.

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sys/ipc.h>
#include <sys/syscall.h>
#include <time.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {

void addMachine(List& list) {
  constexpr const char* GROUP = "change the machine";
  list.plain(GROUP, "host name", SYS_sethostname, "x", 1);
  list.plain(GROUP, "domain name", SYS_setdomainname, "x", 1);
  list.plain(GROUP, "I/O ports", SYS_iopl, 3);
  list.plain(GROUP, "an I/O port", SYS_ioperm, 0x80, 1, 1);
  list.plain(GROUP, "reboot", SYS_reboot, 0, 0, 0, nullptr);  // no magic numbers: never obeyed
  list.plain(GROUP, "swap", SYS_swapon, "/none", 0);
  list.plain(GROUP, "accounting", SYS_acct, "/none");
  list.plain(GROUP, "load a module", SYS_init_module, nullptr, 0, "");
  list.plain(GROUP, "load a module's fd", SYS_finit_module, -1, "", 0);
  list.plain(GROUP, "unload a module", SYS_delete_module, "none", O_NONBLOCK);
  list.plain(GROUP, "another kernel", SYS_kexec_load, 0, ~0ul, nullptr, ~0ul);
  list.plain(GROUP, "kernel log", SYS_syslog, 5, nullptr, 0);
  list.plain(GROUP, "hang up the terminal", SYS_vhangup);
  list.add(GROUP, "clock", [](const Targets&) {
    timespec never = {-1, 0};
    return call(SYS_clock_settime, CLOCK_REALTIME, &never);
  });
  list.plain(GROUP, "quota", SYS_quotactl, 0, nullptr, 0, nullptr);
  list.plain(GROUP, "open by handle", SYS_open_by_handle_at, AT_FDCWD, nullptr, 0);

  constexpr const char* SURFACE = "the kernel's surface";
  list.add(SURFACE, "bpf", [](const Targets&) {
    bpf_attr attributes = {};
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = 4;
    attributes.value_size = 4;
    attributes.max_entries = 1;
    return call(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
  });
  list.add(SURFACE, "perf", [](const Targets&) {
    perf_event_attr attributes = {};
    attributes.size = sizeof(attributes);
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.exclude_kernel = 1;
    return call(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
  });
  list.add(SURFACE, "aio", [](const Targets&) {
    unsigned long context = 0;
    return call(SYS_io_setup, 1, &context);
  });
  list.plain(SURFACE, "userfaultfd", SYS_userfaultfd, O_CLOEXEC);
  list.plain(SURFACE, "userfaultfd, user mode", SYS_userfaultfd, O_CLOEXEC | 1);
  list.plain(SURFACE, "secret memory", 447, 0);
  list.plain(SURFACE, "keys", SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING);
  list.plain(SURFACE, "keyring", SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
  list.plain(SURFACE, "fanotify", SYS_fanotify_init, 0, 0);
  list.plain(SURFACE, "inotify", SYS_inotify_init1, 0);
  list.plain(SURFACE, "memfd", SYS_memfd_create, "probe", 0);
  list.plain(SURFACE, "System V memory", SYS_shmget, IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
  list.plain(SURFACE, "System V messages", SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600);
  list.plain(SURFACE, "message queue", SYS_mq_open, "probe", O_CREAT | O_RDWR, 0600, nullptr);
  list.plain(SURFACE, "landlock", SYS_landlock_create_ruleset, nullptr, 0, 1);
  list.plain(SURFACE, "timer", SYS_timerfd_create, CLOCK_MONOTONIC, 0);
  list.plain(SURFACE, "pipe", SYS_pipe, nullptr);
}

}  // namespace troupe::sandbox::probe
