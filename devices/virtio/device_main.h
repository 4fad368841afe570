#pragma once

#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/function.h>

#include "devices/virtio/device_engine.h"
#include "sandbox/actor_setup.h"

namespace troupe::virtio {

// Builds the engine of one device kind from what the process was handed. `io` is the process's
// event loop; `setup` names its fds and holds its configuration.
using EngineFactory =
    kj::Function<kj::Own<DeviceEngine>(kj::AsyncIoContext& io, sandbox::ActorSetup& setup)>;

// The whole life of a device process: reads its setup, makes the engine, serves `Device` on the fd
// "rpc", takes its filters at attach, ends when the broker is gone. Returns the exit status.
int deviceMain(EngineFactory factory);

// Memory in which a process leaves something to whoever takes its place, aligned to a page: zeroes,
// or what a process before this one left, which may have been hostile. It outlives the engine.
// Empty when nobody will take its place.
using EngineMemory = kj::ArrayPtr<kj::byte>;

// The same for an engine that keeps more than the journals of its queues.
using KeepingEngineFactory = kj::Function<kj::Own<DeviceEngine>(
    kj::AsyncIoContext& io, sandbox::ActorSetup& setup, EngineMemory kept)>;
int keepingDeviceMain(KeepingEngineFactory factory);

}  // namespace troupe::virtio
