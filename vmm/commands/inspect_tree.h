#pragma once

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <kj/function.h>
#include <kj/string.h>

#include "vmm/control/control_client.h"

namespace troupe {

// What a running VM says of itself, as one tree: status, jail, graph, load and, where it has one,
// balloon, each as protos/control.capnp names its fields. A path leads down it by the names of
// fields; an element of a list goes by its number or by what it calls its name, or else its layer,
// index or number of an fd: "status/actors/blk0/pid", "load/processes/net0/queues/1".
//
// Every text in it is safe to show.
class InspectTree {
 public:
  // Asks for what `path` begins with; for all if it is empty. Throws a user error for a path that
  // leads nowhere, with what there is instead.
  InspectTree(ControlClient& client, kj::StringPtr path);
  KJ_DISALLOW_COPY(InspectTree);

  kj::String json() const;

  // What the path leads to, if it is a single value.
  kj::Maybe<kj::String> single() const;

  // Each single value below, with the way to it from there.
  void each(kj::FunctionParam<void(kj::StringPtr path, kj::StringPtr value)> tell) const;

 private:
  capnp::JsonCodec codec;
  capnp::MallocMessageBuilder whole;
  capnp::JsonValue::Reader at;
};

}  // namespace troupe
