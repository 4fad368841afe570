#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "vmm/words/exit_codes.h"

// The stable codes of the errors `troupe` itself reports. Each has its row in docs/errors.md, and a
// number is never used for a second meaning.
namespace troupe::codes {

struct ErrorCode {
  const char* text;
  ExitCode exit;
};

// The command line and the configuration.
constexpr ErrorCode UNKNOWN_COMMAND{"TRP-cfg-001", ExitCode::USAGE};
constexpr ErrorCode UNKNOWN_OPTION{"TRP-cfg-002", ExitCode::USAGE};
constexpr ErrorCode OPTION_VALUE{"TRP-cfg-003", ExitCode::USAGE};
constexpr ErrorCode ARGUMENTS{"TRP-cfg-004", ExitCode::USAGE};
constexpr ErrorCode GIVEN_TWICE{"TRP-cfg-005", ExitCode::USAGE};
constexpr ErrorCode NOT_A_CHOICE{"TRP-cfg-006", ExitCode::USAGE};
constexpr ErrorCode CONFIG_UNREADABLE{"TRP-cfg-007", ExitCode::USAGE};
constexpr ErrorCode CONFIG_NOT_JSON{"TRP-cfg-008", ExitCode::USAGE};
constexpr ErrorCode CONFIG_KEY{"TRP-cfg-009", ExitCode::USAGE};
constexpr ErrorCode CONFIG_TYPE{"TRP-cfg-010", ExitCode::USAGE};
constexpr ErrorCode NO_KERNEL{"TRP-cfg-011", ExitCode::USAGE};
constexpr ErrorCode MEMORY_SIZE{"TRP-cfg-012", ExitCode::USAGE};
constexpr ErrorCode CPU_COUNT{"TRP-cfg-013", ExitCode::USAGE};
constexpr ErrorCode DISK_OPTION{"TRP-cfg-014", ExitCode::USAGE};
constexpr ErrorCode DISK_ID{"TRP-cfg-015", ExitCode::USAGE};
constexpr ErrorCode STDIO_TWICE{"TRP-cfg-016", ExitCode::USAGE};
constexpr ErrorCode VM_NAME{"TRP-cfg-017", ExitCode::USAGE};
constexpr ErrorCode FILE_UNREADABLE{"TRP-cfg-018", ExitCode::USAGE};
constexpr ErrorCode FILE_KIND{"TRP-cfg-019", ExitCode::USAGE};
constexpr ErrorCode FILE_EMPTY{"TRP-cfg-020", ExitCode::USAGE};
constexpr ErrorCode FILE_EXCEEDS_RAM{"TRP-cfg-021", ExitCode::USAGE};
constexpr ErrorCode DISK_SIZE{"TRP-cfg-022", ExitCode::USAGE};
constexpr ErrorCode DISK_TWICE{"TRP-cfg-023", ExitCode::USAGE};
constexpr ErrorCode DISK_IN_USE{"TRP-cfg-024", ExitCode::USAGE};
constexpr ErrorCode BACKEND_FILE{"TRP-cfg-025", ExitCode::USAGE};
constexpr ErrorCode BACKEND_SOCKET{"TRP-cfg-026", ExitCode::USAGE};
constexpr ErrorCode NAME_IN_USE{"TRP-cfg-027", ExitCode::USAGE};
constexpr ErrorCode NO_SUCH_VM{"TRP-cfg-028", ExitCode::USAGE};
constexpr ErrorCode TOO_MANY_DISKS{"TRP-cfg-029", ExitCode::USAGE};
constexpr ErrorCode MEMORY_EXCEEDS_HOST{"TRP-cfg-030", ExitCode::USAGE};
constexpr ErrorCode CMDLINE{"TRP-cfg-031", ExitCode::USAGE};
constexpr ErrorCode CPU_MASK{"TRP-cfg-032", ExitCode::USAGE};
constexpr ErrorCode PROFILE_FOLDER{"TRP-cfg-033", ExitCode::USAGE};
constexpr ErrorCode PROFILE_BROKEN{"TRP-cfg-034", ExitCode::USAGE};
constexpr ErrorCode BACKING_LOOP{"TRP-cfg-035", ExitCode::USAGE};
constexpr ErrorCode NO_SUCH_DISK{"TRP-cfg-036", ExitCode::USAGE};
constexpr ErrorCode VM_DISK_RESIZE{"TRP-cfg-037", ExitCode::USAGE};
constexpr ErrorCode CONSOLE_OPTION{"TRP-con-010", ExitCode::USAGE};
constexpr ErrorCode CONSOLE_NAME{"TRP-con-011", ExitCode::USAGE};
constexpr ErrorCode TOO_MANY_CONSOLES{"TRP-con-012", ExitCode::USAGE};
// Said by a disk's actor.
constexpr ErrorCode DISK_SHRINKS{"TRP-blk-011", ExitCode::USAGE};
constexpr ErrorCode IMAGE_NOT_GROWN{"TRP-blk-012", ExitCode::HOST};

constexpr ErrorCode TOO_MANY_DEVICES{"TRP-cfg-038", ExitCode::USAGE};

// Devices and their processes.
constexpr ErrorCode NO_SUCH_DEVICE{"TRP-dev-001", ExitCode::USAGE};
constexpr ErrorCode NOT_REPLACEABLE{"TRP-dev-002", ExitCode::USAGE};
constexpr ErrorCode NOT_EXCHANGED{"TRP-dev-003", ExitCode::HOST};
constexpr ErrorCode DEVICE_PROGRAM{"TRP-dev-004", ExitCode::USAGE};
constexpr ErrorCode DEVICE_PROFILE{"TRP-dev-005", ExitCode::USAGE};
constexpr ErrorCode LOOSER_PROFILE{"TRP-dev-006", ExitCode::USAGE};

// The network. Numbers from 101 on are said by the device's actor.
constexpr ErrorCode NET_OPTION{"TRP-net-001", ExitCode::USAGE};
constexpr ErrorCode NET_MAC{"TRP-net-002", ExitCode::USAGE};
constexpr ErrorCode TOO_MANY_NETS{"TRP-net-003", ExitCode::USAGE};
constexpr ErrorCode NO_TAP{"TRP-net-004", ExitCode::HOST};
constexpr ErrorCode TAP_FORBIDDEN{"TRP-net-005", ExitCode::HOST};
constexpr ErrorCode TAP_UNUSABLE{"TRP-net-006", ExitCode::HOST};
constexpr ErrorCode NET_FD{"TRP-net-007", ExitCode::USAGE};
constexpr ErrorCode PCAP_FILE{"TRP-net-008", ExitCode::USAGE};
constexpr ErrorCode NO_PASST{"TRP-net-009", ExitCode::HOST};
constexpr ErrorCode NET_WISH{"TRP-net-010", ExitCode::USAGE};
constexpr ErrorCode NO_SUCH_NET{"TRP-net-011", ExitCode::USAGE};
constexpr ErrorCode NET_NOT_TOLD{"TRP-net-012", ExitCode::DEVICE_LOST};
constexpr ErrorCode PORT_NOT_HAD{"TRP-net-013", ExitCode::USAGE};

// The host.
constexpr ErrorCode RUN_OUT{"TRP-host-012", ExitCode::HOST};
constexpr ErrorCode NO_KVM{"TRP-host-001", ExitCode::HOST};
constexpr ErrorCode KVM_FORBIDDEN{"TRP-host-002", ExitCode::HOST};
constexpr ErrorCode KVM_UNUSABLE{"TRP-host-003", ExitCode::HOST};
constexpr ErrorCode RUN_FOLDER{"TRP-host-004", ExitCode::HOST};
constexpr ErrorCode RUN_FOLDER_UNSAFE{"TRP-host-005", ExitCode::HOST};
constexpr ErrorCode PROGRAM_MISSING{"TRP-host-006", ExitCode::HOST};
constexpr ErrorCode NO_PTY{"TRP-host-007", ExitCode::HOST};
constexpr ErrorCode CONTROL_SOCKET{"TRP-host-008", ExitCode::HOST};
constexpr ErrorCode HOST_CHECK_FAILED{"TRP-host-009", ExitCode::HOST};
constexpr ErrorCode STANDARD_OUTPUT{"TRP-host-010", ExitCode::HOST};
constexpr ErrorCode DISK_NOT_GROWN{"TRP-host-011", ExitCode::HOST};

// The socket device.
constexpr ErrorCode VSOCK_OPTION{"TRP-vsk-001", ExitCode::USAGE};
constexpr ErrorCode VSOCK_CID{"TRP-vsk-002", ExitCode::USAGE};
constexpr ErrorCode VSOCK_CID_TAKEN{"TRP-vsk-003", ExitCode::USAGE};
constexpr ErrorCode VSOCK_PATH{"TRP-vsk-004", ExitCode::USAGE};
constexpr ErrorCode VSOCK_SOCKET{"TRP-vsk-005", ExitCode::USAGE};

// `troupe disk`. Numbers from 101 on are said by its jailed process.
constexpr ErrorCode DISK_FORMAT{"TRP-disk-001", ExitCode::USAGE};
constexpr ErrorCode DISK_BYTES{"TRP-disk-002", ExitCode::USAGE};
constexpr ErrorCode DISK_EXISTS{"TRP-disk-003", ExitCode::USAGE};
constexpr ErrorCode DISK_NOT_MADE{"TRP-disk-004", ExitCode::USAGE};
constexpr ErrorCode DISK_RESIZE{"TRP-disk-005", ExitCode::USAGE};
constexpr ErrorCode DISK_TOOL{"TRP-disk-006", ExitCode::INTERNAL};
constexpr ErrorCode DISK_CLUSTERS{"TRP-disk-007", ExitCode::USAGE};
constexpr ErrorCode DISK_CHOICE{"TRP-disk-008", ExitCode::USAGE};

// A VM that starts or runs.
constexpr ErrorCode ACTOR_DIED{"TRP-run-001", ExitCode::START};
constexpr ErrorCode START_REFUSED{"TRP-run-002", ExitCode::START};
constexpr ErrorCode START_TIMEOUT{"TRP-run-003", ExitCode::START};
constexpr ErrorCode DEVICE_LOST{"TRP-run-004", ExitCode::DEVICE_LOST};
constexpr ErrorCode BROKER_FAILED{"TRP-run-005", ExitCode::BROKER_FAILED};
constexpr ErrorCode GUEST_CRASHED{"TRP-run-006", ExitCode::GUEST_CRASHED};
constexpr ErrorCode VM_SILENT{"TRP-run-007", ExitCode::INTERNAL};
constexpr ErrorCode DEMO_FAILED{"TRP-run-008", ExitCode::INTERNAL};
// Before the guest runs; later the end is that of whoever was lost.
constexpr ErrorCode CALL_REFUSED{"TRP-run-009", ExitCode::START};
constexpr ErrorCode LIMIT_MET{"TRP-run-010", ExitCode::START};
// Pausing, resetting, starting anew. CRASH_LOOP exits as the last crash would.
constexpr ErrorCode CRASH_LOOP{"TRP-run-020", ExitCode::GUEST_CRASHED};
constexpr ErrorCode REBOOT_FAILED{"TRP-run-021", ExitCode::BROKER_FAILED};
constexpr ErrorCode GUEST_PANICKED{"TRP-run-022", ExitCode::GUEST_PANICKED};
constexpr ErrorCode NOT_RUNNING{"TRP-run-023", ExitCode::USAGE};
constexpr ErrorCode STOP_TIMEOUT{"TRP-run-024", ExitCode::USAGE};
constexpr ErrorCode HOST_MEMORY_LOST{"TRP-run-026", ExitCode::BROKER_FAILED};
constexpr ErrorCode GRAPH_DIFFERS{"TRP-run-025", ExitCode::JAIL};

constexpr ErrorCode RNG_RATE{"TRP-rng-002", ExitCode::USAGE};

// A guest's bundle and configuration.
constexpr ErrorCode GUEST_CFG_SHAPE{"TRP-rlm-001", ExitCode::USAGE};
constexpr ErrorCode GUEST_KEY{"TRP-rlm-002", ExitCode::USAGE};
constexpr ErrorCode GUEST_VALUE{"TRP-rlm-003", ExitCode::USAGE};
constexpr ErrorCode GUEST_IMPOSSIBLE{"TRP-rlm-004", ExitCode::USAGE};
constexpr ErrorCode GUEST_SET_TWICE{"TRP-rlm-005", ExitCode::USAGE};
constexpr ErrorCode BUNDLE_KEY{"TRP-rlm-006", ExitCode::USAGE};
constexpr ErrorCode BUNDLE_URL{"TRP-rlm-007", ExitCode::USAGE};
constexpr ErrorCode BUNDLE_PATH{"TRP-rlm-008", ExitCode::USAGE};
constexpr ErrorCode FLAT_NAMESPACE{"TRP-rlm-009", ExitCode::USAGE};
constexpr ErrorCode BLOCK_DEVICE{"TRP-rlm-010", ExitCode::USAGE};
constexpr ErrorCode REALM_NET{"TRP-rlm-011", ExitCode::USAGE};
constexpr ErrorCode MAC_TAKEN{"TRP-rlm-012", ExitCode::USAGE};
constexpr ErrorCode BUNDLE_NOT_MADE{"TRP-rlm-013", ExitCode::USAGE};

// Realms and who speaks to them.
constexpr ErrorCode REALM_OVER{"TRP-rlm-030", ExitCode::USAGE};
constexpr ErrorCode TOO_MANY_GUESTS{"TRP-rlm-031", ExitCode::USAGE};
constexpr ErrorCode TOO_MANY_REALMS{"TRP-rlm-032", ExitCode::USAGE};
constexpr ErrorCode NO_SUCH_REALM{"TRP-rlm-033", ExitCode::USAGE};
constexpr ErrorCode NO_SUCH_GUEST{"TRP-rlm-034", ExitCode::USAGE};
constexpr ErrorCode GUEST_ENDED{"TRP-rlm-035", ExitCode::USAGE};
constexpr ErrorCode NO_LINE{"TRP-rlm-036", ExitCode::USAGE};
constexpr ErrorCode REALM_TEXT{"TRP-rlm-037", ExitCode::USAGE};
constexpr ErrorCode NO_DAEMON{"TRP-rlm-039", ExitCode::USAGE};
constexpr ErrorCode SERVE_SOCKET{"TRP-rlm-040", ExitCode::USAGE};
constexpr ErrorCode HANDLE_EMPTY{"TRP-rlm-041", ExitCode::USAGE};
constexpr ErrorCode REALM_PAGES{"TRP-rlm-042", ExitCode::USAGE};
constexpr ErrorCode RPC_REQUEST{"TRP-rlm-043", ExitCode::USAGE};
constexpr ErrorCode NO_VSOCK{"TRP-rlm-044", ExitCode::USAGE};
constexpr ErrorCode NOT_REACHED{"TRP-rlm-045", ExitCode::USAGE};

// Memory of the host's.
constexpr ErrorCode HOST_MEMORY_OPTION{"TRP-rlm-060", ExitCode::USAGE};
constexpr ErrorCode HOST_MEMORY_UNFIT{"TRP-rlm-061", ExitCode::USAGE};
constexpr ErrorCode HOST_MEMORY_FORBIDDEN{"TRP-rlm-062", ExitCode::USAGE};
constexpr ErrorCode HOST_MEMORY_IN_USE{"TRP-rlm-063", ExitCode::USAGE};

// A memory balloon.
constexpr ErrorCode NO_BALLOON{"TRP-bal-001", ExitCode::USAGE};
constexpr ErrorCode BALLOON_SIZE{"TRP-bal-002", ExitCode::USAGE};
constexpr ErrorCode BALLOON_SILENT{"TRP-bal-003", ExitCode::DEVICE_LOST};
constexpr ErrorCode NO_FREE_PAGE_HINTS{"TRP-bal-004", ExitCode::USAGE};
constexpr ErrorCode DEVICE_ABANDONED{"TRP-run-011", ExitCode::DEVICE_LOST};

// The flight recorder. 005 is said by its jailed process.
constexpr ErrorCode RECORD_OPTION{"TRP-rec-001", ExitCode::USAGE};
constexpr ErrorCode RECORD_FILE{"TRP-rec-002", ExitCode::USAGE};
constexpr ErrorCode RECORD_LIMIT{"TRP-rec-003", ExitCode::USAGE};
constexpr ErrorCode RECORD_BROKEN{"TRP-rec-004", ExitCode::HOST};
constexpr ErrorCode NO_RECORDING{"TRP-rec-006", ExitCode::USAGE};
constexpr ErrorCode REPLAY_KIND{"TRP-rec-007", ExitCode::USAGE};
constexpr ErrorCode REPLAY_DIFFERS{"TRP-rec-008", ExitCode::REPLAY_DIFFERS};
constexpr ErrorCode REPLAYER{"TRP-rec-010", ExitCode::INTERNAL};
constexpr ErrorCode RECORD_DEVICE{"TRP-rec-009", ExitCode::USAGE};

// The sandbox; codes of its own come from sandbox/.
constexpr ErrorCode PROFILE_COMPILER{"TRP-jail-031", ExitCode::JAIL};
constexpr ErrorCode JAIL_DIFFERS{"TRP-jail-032", ExitCode::JAIL};

// What is seen of a running VM.
constexpr ErrorCode TOP_OPTION{"TRP-obs-001", ExitCode::USAGE};
constexpr ErrorCode EVENTS_SINCE{"TRP-obs-002", ExitCode::USAGE};
constexpr ErrorCode TOO_MANY_READERS{"TRP-obs-003", ExitCode::USAGE};
constexpr ErrorCode METRICS_SOCKET{"TRP-obs-004", ExitCode::USAGE};
constexpr ErrorCode VM_GONE{"TRP-obs-005", ExitCode::INTERNAL};

constexpr ErrorCode INTERNAL{"TRP-int-001", ExitCode::INTERNAL};

constexpr ErrorCode ALL[] = {
    UNKNOWN_COMMAND,
    UNKNOWN_OPTION,
    OPTION_VALUE,
    ARGUMENTS,
    GIVEN_TWICE,
    NOT_A_CHOICE,
    CONFIG_UNREADABLE,
    CONFIG_NOT_JSON,
    CONFIG_KEY,
    CONFIG_TYPE,
    NO_KERNEL,
    MEMORY_SIZE,
    CPU_COUNT,
    DISK_OPTION,
    DISK_ID,
    STDIO_TWICE,
    VM_NAME,
    FILE_UNREADABLE,
    FILE_KIND,
    FILE_EMPTY,
    FILE_EXCEEDS_RAM,
    DISK_SIZE,
    DISK_TWICE,
    DISK_IN_USE,
    BACKEND_FILE,
    BACKEND_SOCKET,
    NAME_IN_USE,
    NO_SUCH_VM,
    TOO_MANY_DISKS,
    MEMORY_EXCEEDS_HOST,
    CMDLINE,
    CPU_MASK,
    RUN_OUT,
    NO_KVM,
    KVM_FORBIDDEN,
    KVM_UNUSABLE,
    RUN_FOLDER,
    RUN_FOLDER_UNSAFE,
    PROGRAM_MISSING,
    NO_PTY,
    CONTROL_SOCKET,
    HOST_CHECK_FAILED,
    ACTOR_DIED,
    START_REFUSED,
    START_TIMEOUT,
    DEVICE_LOST,
    BROKER_FAILED,
    GUEST_CRASHED,
    VM_SILENT,
    DEMO_FAILED,
    STANDARD_OUTPUT,
    RECORD_OPTION,
    RECORD_FILE,
    RECORD_LIMIT,
    RECORD_BROKEN,
    NO_RECORDING,
    REPLAY_KIND,
    REPLAY_DIFFERS,
    REPLAYER,
    RECORD_DEVICE,
    INTERNAL,
    CALL_REFUSED,
    LIMIT_MET,
    PROFILE_FOLDER,
    PROFILE_BROKEN,
    BACKING_LOOP,
    PROFILE_COMPILER,
    JAIL_DIFFERS,
    REALM_OVER,
    TOO_MANY_GUESTS,
    TOO_MANY_REALMS,
    NO_SUCH_REALM,
    NO_SUCH_GUEST,
    GUEST_ENDED,
    NO_LINE,
    REALM_TEXT,
    NO_DAEMON,
    SERVE_SOCKET,
    HANDLE_EMPTY,
    REALM_PAGES,
    RPC_REQUEST,
    NO_VSOCK,
    NOT_REACHED,
    HOST_MEMORY_OPTION,
    HOST_MEMORY_UNFIT,
    HOST_MEMORY_FORBIDDEN,
    HOST_MEMORY_IN_USE,
    HOST_MEMORY_LOST,
    DISK_FORMAT,
    DISK_BYTES,
    DISK_EXISTS,
    DISK_NOT_MADE,
    DISK_RESIZE,
    DISK_TOOL,
    DISK_CLUSTERS,
    DISK_CHOICE,
    NO_SUCH_DISK,
    NO_SUCH_DEVICE,
    NOT_REPLACEABLE,
    NOT_EXCHANGED,
    DEVICE_PROGRAM,
    DEVICE_PROFILE,
    LOOSER_PROFILE,
    VM_DISK_RESIZE,
    DISK_SHRINKS,
    IMAGE_NOT_GROWN,
    DISK_NOT_GROWN,
    DEVICE_ABANDONED,
    TOO_MANY_DEVICES,
    NET_OPTION,
    NET_MAC,
    TOO_MANY_NETS,
    NO_TAP,
    TAP_FORBIDDEN,
    TAP_UNUSABLE,
    NET_FD,
    PCAP_FILE,
    NO_PASST,
    NET_WISH,
    NO_SUCH_NET,
    NET_NOT_TOLD,
    PORT_NOT_HAD,
    NO_BALLOON,
    BALLOON_SIZE,
    BALLOON_SILENT,
    NO_FREE_PAGE_HINTS,
    CRASH_LOOP,
    REBOOT_FAILED,
    GUEST_PANICKED,
    NOT_RUNNING,
    STOP_TIMEOUT,
    VSOCK_OPTION,
    VSOCK_CID,
    VSOCK_CID_TAKEN,
    VSOCK_PATH,
    VSOCK_SOCKET,
    GRAPH_DIFFERS,
    RNG_RATE,
    CONSOLE_OPTION,
    CONSOLE_NAME,
    TOO_MANY_CONSOLES,
    GUEST_CFG_SHAPE,
    GUEST_KEY,
    GUEST_VALUE,
    GUEST_IMPOSSIBLE,
    GUEST_SET_TWICE,
    BUNDLE_KEY,
    BUNDLE_URL,
    BUNDLE_PATH,
    FLAT_NAMESPACE,
    BLOCK_DEVICE,
    REALM_NET,
    MAC_TAKEN,
    BUNDLE_NOT_MADE,
    TOP_OPTION,
    EVENTS_SINCE,
    TOO_MANY_READERS,
    METRICS_SOCKET,
    VM_GONE,
};

// What an error of another actor means for whoever started `troupe`, by the area of its code; an
// exact entry of ALL comes first.
struct AreaExit {
  const char* area;
  ExitCode exit;
};

constexpr AreaExit AREAS[] = {
    {"cfg", ExitCode::USAGE},     // said by the actor that understands the value
    {"boot", ExitCode::USAGE},    // the kernel, initrd or command line does not do
    {"host", ExitCode::HOST},     // the machine
    {"kvm", ExitCode::HOST},      // its hypervisor
    {"jail", ExitCode::JAIL},     // the sandbox
    {"dev", ExitCode::USAGE},     // a device that was named to `troupe device`
    {"disk", ExitCode::USAGE},    // a disk that was named to `troupe disk`
    {"blk", ExitCode::START},     // a device could not begin
    {"con", ExitCode::START},     //
    {"rec", ExitCode::USAGE},     // a recording
    {"rng", ExitCode::START},     //
    {"net", ExitCode::START},     //
    {"bal", ExitCode::START},     //
    {"vsk", ExitCode::START},     //
    {"pci", ExitCode::START},     //
    {"run", ExitCode::START},     //
    {"rlm", ExitCode::USAGE},     // a guest's bundle or configuration
    {"obs", ExitCode::USAGE},     // what is seen of a running VM
    {"int", ExitCode::INTERNAL},  //
};

}  // namespace troupe::codes
