#pragma once

#include <kj/array.h>
#include <kj/io.h>

#include "sandbox/shared_memory.h"
#include "vmm/config/vm_plan.h"
#include "vmm/files/endpoint_files.h"
#include "vmm/files/host_memory_file.h"
#include "vmm/files/open_file.h"
#include "vmm/net/mac_lease.h"
#include "vmm/net/net_files.h"
#include "vmm/record/recording_file.h"
#include "vmm/vsock/vsock_files.h"

namespace troupe {

// Everything of the host's that one VM is given, opened and checked. Disks and the host's memory
// are not locked yet (lockDisks(), lockHostMemory()).
struct VmFiles {
  OpenFile kernel;
  kj::Maybe<OpenFile> initrd;
  kj::Maybe<OpenFile> deviceTree;
  kj::Array<OpenFile> disks;  // in the order of VmPlan::disks
  kj::Array<NetFiles> nets;   // in the order of VmPlan::nets
  kj::AutoCloseFd kvm;
  EndpointFiles serial;
  kj::Array<EndpointFiles> consoles;  // in the order of VmPlan::consoles
  sandbox::SharedMemory ram;          // until the broker has it
  kj::Maybe<VsockFiles> vsock;
  kj::Maybe<kj::Own<ListeningSocket>> metrics;
  kj::Array<RecordingFile> recordings;
  kj::Array<HostMemoryFile> hostMemory = nullptr;  // in the order of VmPlan::hostMemory
  kj::Vector<kj::Own<MacLease>> macs = {};         // of its networks that lead to a bridge

  // The VM runs: what was made for it stays when it ends.
  void keepMade();
};

// Throws a user error for the first thing that is not as it should be. What the user named comes
// before what the host lacks.
// `source` has kernel, initrd, device tree and disks; all else is the host's.
// A realm gives its guests cids that others may have, too.
enum class CidOwner { VM, REALM };
VmFiles openVmFiles(const VmPlan& plan, const FileSource& source = HostFiles(),
                    CidOwner cidOwner = CidOwner::VM);

}  // namespace troupe
