#pragma once

#include <kj/memory.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "vmm/company/vm_files.h"
#include "vmm/config/vm_plan.h"
#include "vmm/files/run_folder.h"
#include "vmm/vsock/vsock_neighbours.h"

namespace troupe {

// What its guest does when all is ready: runs, or waits for RunningVm::resume() to run its first
// instruction.
enum class Begin { RUNNING, PAUSED };

// What a VM is made from: a checked plan and everything of the host's that it names, open. Nothing
// is looked up by name after this.
struct VmStart {
  VmPlan plan;
  VmFiles files;                             // opened for `plan`
  kj::Vector<kj::String> notes;              // for the user, a line each
  kj::Own<VsockNeighbours> neighbours = {};  // of its socket device; by default the host's programs
  kj::Own<VmPlace> place = {};               // where it is found; by default one of the plan's name
  Begin begin = Begin::RUNNING;
};

}  // namespace troupe
