#pragma once

#include <capnp/compat/json.h>
#include <capnp/dynamic.h>
#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/io.h>

#include <map>

#include "protos/realm.capnp.h"

namespace troupe::realm {

// What `troupe rpc` speaks: one JSON object a line in and out, converted by the schemas of
// protos/realm.capnp. Capabilities are numbers; 0 is the Manager.
//
//   {"id": 1, "on": 0, "call": "create", "params": {"label": "x"}}    {"id": 1, "result": {...}}
//   {"id": 2, "open": "disk.img", "write": true}                      {"id": 2, "handle": 5}
//   {"id": 3, "pair": true}                                           {"id": 3, "handles": [6, 7]}
//   {"id": 4, "read": 6, "most": 4096}                                {"id": 4, "base64": "..."}
//   {"id": 5, "write": 6, "base64": "..."}                            {"id": 5, "bytes": 12}
//   {"id": 6, "drop": 6}                                              {"id": 6}
//
// An answer that is an error has "error" and, where the error has one, "code". Answers come as they
// are ready, in any order. Where a HostVsockAcceptor is wanted, "NAME" makes one: each stream that
// it accepts is told as {"accepted": "NAME", "srcCid": …, "srcPort": …, "port": …, "handle": …}.
class RpcSession final: private kj::TaskSet::ErrorHandler {
 public:
  // `say` is given each line to be printed, without its end.
  RpcSession(kj::AsyncIoContext& io, Manager::Client manager,
             kj::Function<void(kj::StringPtr)> say);
  ~RpcSession() noexcept(false);
  KJ_DISALLOW_COPY(RpcSession);

  void take(kj::ArrayPtr<const char> line);

  // Resolves when all that was asked is answered.
  kj::Promise<void> onIdle() { return answers.onEmpty(); }

 private:
  class Capabilities;
  class NamedAcceptor;
  struct Thing {  // what a number stands for: one of the two, or a Handle's both
    kj::Maybe<capnp::DynamicCapability::Client> capability;
    kj::Maybe<kj::AutoCloseFd> fd;
    kj::Maybe<kj::Own<kj::AsyncIoStream>> stream;  // made when it is first read or written
  };
  using Answer = kj::Own<capnp::MallocMessageBuilder>;  // a JsonValue, an object

  kj::Promise<Answer> answer(capnp::JsonValue::Reader request);
  kj::Promise<Answer> call(capnp::JsonValue::Reader request, uint32_t on, kj::StringPtr method);
  kj::Promise<Answer> read(capnp::JsonValue::Reader request, uint32_t handle);
  kj::Promise<Answer> write(capnp::JsonValue::Reader request, uint32_t handle);
  Answer open(capnp::JsonValue::Reader request, kj::StringPtr path);
  Answer pair();
  Answer drop(uint32_t number);
  kj::Promise<void> keepFds(kj::Array<uint32_t> numbers);
  void reply(double id, capnp::JsonValue::Reader rest);
  void taskFailed(kj::Exception&& failure) override;

  Thing& find(uint32_t number);
  kj::AsyncIoStream& streamOf(Thing& thing, uint32_t number);
  uint32_t add(Thing thing);

  kj::AsyncIoContext& io;
  kj::Function<void(kj::StringPtr)> say;
  capnp::JsonCodec codec;
  kj::Own<Capabilities> capabilities;
  std::map<uint32_t, Thing> things;
  uint32_t next = 0;
  kj::TaskSet answers;
};

}  // namespace troupe::realm
