#pragma once

#include <kj/io.h>
#include <kj/vector.h>

#include "devices/net/net.capnp.h"
#include "sandbox/launcher.h"
#include "vmm/actors/actor.h"
#include "vmm/config/net_plan.h"
#include "vmm/net/net_files.h"

namespace troupe {

// What a network device is told at its start.
void describeNet(const NetPlan& plan, const NetFiles& files, NetConfig::Builder config);

// The fds it gets. `socket`: of one with a helper, its end of their connection.
void handNet(const NetFiles& files, int socket, kj::Vector<sandbox::HandedFd>& fds);

// The connection between a device (`ours`) and its helper, which blocks where it writes.
SocketPair makeFrameSockets();

// It says so of each line that it prints, too: its root has no /dev/log.
constexpr kj::StringPtr PASST_NOISE = "Failed to send "_kj;

// How passt is told to serve a device over fd 3.
kj::Array<kj::String> passtArguments(const NetPlan& plan);

// /dev/null, for what a helper would take for its terminal.
kj::AutoCloseFd openNull();

}  // namespace troupe
