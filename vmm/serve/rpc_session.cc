#include "vmm/serve/rpc_session.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <sys/socket.h>

#include "client/realm_connection.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_escapes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

using capnp::DynamicCapability;
using capnp::JsonValue;

constexpr size_t MOST_READ = 1 << 20;

[[noreturn]] void refuse(kj::String why) {
  UserError(codes::RPC_REQUEST, kj::mv(why)).raise();
}

kj::Maybe<JsonValue::Reader> fieldOf(JsonValue::Reader object, kj::StringPtr name) {
  for (auto field : object.getObject()) {
    if (field.getName() == name) return field.getValue();
  }
  return nullptr;
}

kj::StringPtr textOf(JsonValue::Reader value, kj::StringPtr name) {
  if (!value.isString()) refuse(kj::str("\"", name, "\" is no text"));
  return value.getString();
}

uint32_t numberOf(JsonValue::Reader value, kj::StringPtr name) {
  if (!value.isNumber() || !(value.getNumber() >= 0 && value.getNumber() <= UINT32_MAX)) {
    refuse(kj::str("\"", name, "\" is not a number from 0"));
  }
  return uint32_t(value.getNumber());
}

// An object with one field of text or a number.
template <typename Set>
kj::Own<capnp::MallocMessageBuilder> objectWith(kj::StringPtr name, Set&& set) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto field = message->initRoot<JsonValue>().initObject(1)[0];
  field.setName(name);
  set(field.initValue());
  return message;
}

// What an error is told as: its text, and the code in front of it.
kj::Own<capnp::MallocMessageBuilder> errorAnswer(const kj::Exception& failure) {
  bool isGone = failure.getType() == kj::Exception::Type::DISCONNECTED;
  auto shown = isGone ? UserError(codes::NO_DAEMON, kj::str("`troupe serve` hung up")).toException()
                      : passedOn(failure, codes::RPC_REQUEST, "it is not done");
  kj::StringPtr text = shown.getDescription();
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto fields = message->initRoot<JsonValue>().initObject(2);
  fields[0].setName("error");
  fields[0].initValue().setString(text);
  fields[1].setName("code");
  fields[1].initValue().setString(kj::heapString(text.slice(0, text.findFirst(':').orDefault(0))));
  return message;
}

// Why the library could not read something.
kj::String reasonOf(const kj::Exception& failure) {
  return escape(withoutCondition(failure.getDescription()), 400);
}

}  // namespace

// Capabilities as numbers, both ways.
class RpcSession::Capabilities final: public capnp::JsonCodec::Handler<DynamicCapability> {
 public:
  explicit Capabilities(RpcSession& session) : session(session) {}

  void encode(const capnp::JsonCodec&, DynamicCapability::Client input,
              JsonValue::Builder output) const override {
    uint32_t number = session.add(Thing{kj::mv(input), nullptr, nullptr});
    if (fresh != nullptr) fresh->add(number);
    output.setNumber(number);
  }

  DynamicCapability::Client decode(const capnp::JsonCodec&, JsonValue::Reader input) const override;

  kj::Vector<uint32_t>* fresh = nullptr;  // those encoded since this was set

 private:
  RpcSession& session;
};

// A listener that a client of `troupe rpc` named.
class RpcSession::NamedAcceptor final: public HostVsockAcceptor::Server {
 public:
  NamedAcceptor(RpcSession& session, kj::StringPtr name)
      : session(session), name(kj::heapString(name)) {}

  kj::Promise<void> accept(AcceptContext context) override {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    kj::AutoCloseFd ours(fds[0]), theirs(fds[1]);
    auto params = context.getParams();
    uint32_t handle = session.add(Thing{nullptr, kj::mv(ours), nullptr});
    capnp::MallocMessageBuilder message;
    auto root = message.initRoot<JsonValue>();
    auto fields = root.initObject(5);
    fields[0].setName("accepted");
    fields[0].initValue().setString(name);
    const struct {
      kj::StringPtr name;
      uint32_t value;
    } numbers[] = {{"srcCid", params.getSrcCid()},
                   {"srcPort", params.getSrcPort()},
                   {"port", params.getPort()},
                   {"handle", handle}};
    for (kj::uint i = 0; i < kj::size(numbers); i++) {
      fields[i + 1].setName(numbers[i].name);
      fields[i + 1].initValue().setNumber(numbers[i].value);
    }
    session.say(session.codec.encodeRaw(root));
    context.getResults().setStatus(VsockStatus::OK);
    context.getResults().setSocket(client::handleOf(kj::mv(theirs)));
    return kj::READY_NOW;
  }

 private:
  RpcSession& session;
  kj::String name;
};

DynamicCapability::Client RpcSession::Capabilities::decode(const capnp::JsonCodec&,
                                                           JsonValue::Reader input) const {
  if (input.isString()) {
    HostVsockAcceptor::Client acceptor = kj::heap<NamedAcceptor>(session, input.getString());
    return acceptor;
  }
  auto& thing = session.find(numberOf(input, "a capability"));
  KJ_IF_MAYBE (capability, thing.capability) {
    return *capability;
  }
  int copy;
  KJ_SYSCALL(copy = fcntl(KJ_ASSERT_NONNULL(thing.fd), F_DUPFD_CLOEXEC, 3));
  return client::handleOf(kj::AutoCloseFd(copy));
}

RpcSession::RpcSession(kj::AsyncIoContext& io, Manager::Client manager,
                       kj::Function<void(kj::StringPtr)> say)
    : io(io), say(kj::mv(say)), capabilities(kj::heap<Capabilities>(*this)), answers(*this) {
  codec.setRejectUnknownFields(true);
  for (auto type :
       {capnp::Schema::from<Manager>(), capnp::Schema::from<Realm>(), capnp::Schema::from<Guest>(),
        capnp::Schema::from<BalloonController>(), capnp::Schema::from<HostVsockEndpoint>(),
        capnp::Schema::from<HostVsockAcceptor>(), capnp::Schema::from<WaylandDispatcher>(),
        capnp::Schema::from<Handle>()}) {
    codec.addTypeHandler(type, *capabilities);
  }
  add(Thing{DynamicCapability::Client(kj::mv(manager)), nullptr, nullptr});
}

RpcSession::~RpcSession() noexcept(false) {}

uint32_t RpcSession::add(Thing thing) {
  uint32_t number = next++;
  things.emplace(number, kj::mv(thing));
  return number;
}

RpcSession::Thing& RpcSession::find(uint32_t number) {
  auto found = things.find(number);
  if (found == things.end()) refuse(kj::str("nothing has the number ", number));
  return found->second;
}

kj::AsyncIoStream& RpcSession::streamOf(Thing& thing, uint32_t number) {
  KJ_IF_MAYBE (stream, thing.stream) {
    return **stream;
  }
  KJ_IF_MAYBE (fd, thing.fd) {
    int copy;
    KJ_SYSCALL(copy = fcntl(*fd, F_DUPFD_CLOEXEC, 3));
    return *thing.stream.emplace(io.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(copy)));
  }
  refuse(kj::str(number, " is no socket"));
}

void RpcSession::take(kj::ArrayPtr<const char> line) {
  double id = 0;
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto request = message->initRoot<JsonValue>();
  auto answered = kj::evalNow([&]() {
    KJ_IF_MAYBE (text, withoutUnicodeEscapes(line)) {
      KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { codec.decodeRaw(*text, request); })) {
        refuse(kj::str("a line is no JSON: ", reasonOf(*failure)));
      }
    } else {
      refuse(kj::str("there is a malformed \\u escape on the line"));
    }
    if (!request.isObject()) refuse(kj::str("a request is one JSON object on a line"));
    KJ_IF_MAYBE (number, fieldOf(request, "id")) {
      if (number->isNumber()) id = number->getNumber();
    }
    return answer(request);
  });
  answers.add(answered.attach(kj::mv(message))
                  .then([this, id](Answer rest) { reply(id, rest->getRoot<JsonValue>()); },
                        [this, id](kj::Exception&& failure) {
                          auto told = errorAnswer(failure);
                          reply(id, told->getRoot<JsonValue>());
                        }));
}

void RpcSession::reply(double id, JsonValue::Reader rest) {
  capnp::MallocMessageBuilder message;
  auto from = rest.getObject();
  auto root = message.initRoot<JsonValue>();
  auto fields = root.initObject(1 + from.size());
  fields[0].setName("id");
  fields[0].initValue().setNumber(id);
  for (kj::uint i = 0; i < from.size(); i++)
    fields.setWithCaveats(i + 1, from[i]);
  say(codec.encodeRaw(root));
}

kj::Promise<RpcSession::Answer> RpcSession::answer(JsonValue::Reader request) {
  KJ_IF_MAYBE (method, fieldOf(request, "call")) {
    uint32_t on = 0;
    KJ_IF_MAYBE (number, fieldOf(request, "on")) {
      on = numberOf(*number, "on");
    }
    return call(request, on, textOf(*method, "call"));
  }
  KJ_IF_MAYBE (path, fieldOf(request, "open")) {
    return open(request, textOf(*path, "open"));
  }
  KJ_IF_MAYBE (handle, fieldOf(request, "read")) {
    return read(request, numberOf(*handle, "read"));
  }
  KJ_IF_MAYBE (handle, fieldOf(request, "write")) {
    return write(request, numberOf(*handle, "write"));
  }
  KJ_IF_MAYBE (number, fieldOf(request, "drop")) {
    return drop(numberOf(*number, "drop"));
  }
  if (fieldOf(request, "pair") != nullptr) return pair();
  refuse(
      kj::str("a request has one of \"call\", \"open\", \"pair\", \"read\", \"write\" and "
              "\"drop\""));
}

kj::Promise<RpcSession::Answer> RpcSession::call(JsonValue::Reader request, uint32_t on,
                                                 kj::StringPtr name) {
  KJ_IF_MAYBE (capability, find(on).capability) {
    KJ_IF_MAYBE (method, capability->getSchema().findMethodByName(name)) {
      auto asked = capability->newRequest(*method);
      KJ_IF_MAYBE (params, fieldOf(request, "params")) {
        KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { codec.decode(*params, asked); })) {
          if (failure->getDescription().startsWith(codes::RPC_REQUEST.text)) {
            kj::throwFatalException(kj::mv(*failure));
          }
          refuse(kj::str("\"params\" of ", quote(name),
                         " do not fit protos/realm.capnp: ", reasonOf(*failure)));
        }
      }
      return asked.send().then([this](capnp::Response<capnp::DynamicStruct>&& response) {
        kj::Vector<uint32_t> fresh;
        capabilities->fresh = &fresh;
        KJ_DEFER(capabilities->fresh = nullptr);
        auto told = objectWith("result", [&](JsonValue::Builder value) {
          codec.encode(capnp::DynamicValue::Reader(capnp::DynamicStruct::Reader(response)),
                       response.getSchema(), value);
        });
        return keepFds(fresh.releaseAsArray()).then([told = kj::mv(told)]() mutable {
          return kj::mv(told);
        });
      });
    }
    auto names = KJ_MAP(method, capability->getSchema().getMethods())->kj::StringPtr {
      return method.getProto().getName();
    };
    refuse(kj::str(on, " has no call ", quote(name), didYouMean(name, names), "; it has ",
                   kj::strArray(names, ", ")));
  }
  refuse(kj::str(on, " is a socket or a file; it is read and written"));
}

// Of new numbers that stand for a Handle what counts is its fd, of which a copy is kept.
kj::Promise<void> RpcSession::keepFds(kj::Array<uint32_t> numbers) {
  auto all = kj::heapArrayBuilder<kj::Promise<void>>(numbers.size());
  for (uint32_t number : numbers) {
    kj::Promise<void> one = kj::READY_NOW;
    KJ_IF_MAYBE (capability, find(number).capability) {
      if (capability->getSchema() == capnp::Schema::from<Handle>()) {
        one = client::fdOf(capability->castAs<Handle>()).then([this, number](kj::AutoCloseFd fd) {
          find(number) = Thing{nullptr, kj::mv(fd), nullptr};
        });
      }
    }
    all.add(kj::mv(one));
  }
  return kj::joinPromises(all.finish());
}

RpcSession::Answer RpcSession::open(JsonValue::Reader request, kj::StringPtr path) {
  bool writes = false;
  KJ_IF_MAYBE (asked, fieldOf(request, "write")) {
    writes = asked->isBoolean() && asked->getBoolean();
  }
  int raw = ::open(path.cStr(), (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (raw < 0) refuse(kj::str(quote(path), " cannot be opened: ", errnoText(errno)));
  uint32_t number = add(Thing{nullptr, kj::AutoCloseFd(raw), nullptr});
  return objectWith("handle", [&](JsonValue::Builder value) { value.setNumber(number); });
}

RpcSession::Answer RpcSession::pair() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd one(fds[0]), other(fds[1]);
  uint32_t first = add(Thing{nullptr, kj::mv(one), nullptr});
  uint32_t second = add(Thing{nullptr, kj::mv(other), nullptr});
  return objectWith("handles", [&](JsonValue::Builder value) {
    auto list = value.initArray(2);
    list[0].setNumber(first);
    list[1].setNumber(second);
  });
}

RpcSession::Answer RpcSession::drop(uint32_t number) {
  find(number);
  things.erase(number);
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  message->initRoot<JsonValue>().initObject(0);
  return message;
}

kj::Promise<RpcSession::Answer> RpcSession::read(JsonValue::Reader request, uint32_t handle) {
  size_t most = 4096;
  KJ_IF_MAYBE (number, fieldOf(request, "most")) {
    most = kj::max(1u, kj::min(numberOf(*number, "most"), uint32_t(MOST_READ)));
  }
  auto buffer = kj::heapArray<kj::byte>(most);
  auto& stream = streamOf(find(handle), handle);
  return stream.tryRead(buffer.begin(), 1, buffer.size())
      .then([buffer = kj::mv(buffer)](size_t bytes) {
        return objectWith("base64", [&](JsonValue::Builder value) {
          value.setString(kj::encodeBase64(buffer.slice(0, bytes)));
        });
      });
}

kj::Promise<RpcSession::Answer> RpcSession::write(JsonValue::Reader request, uint32_t handle) {
  KJ_IF_MAYBE (text, fieldOf(request, "base64")) {
    auto bytes = kj::decodeBase64(textOf(*text, "base64").asArray());
    if (bytes.hadErrors) refuse(kj::str("\"base64\" is no base64"));
    size_t count = bytes.size();
    auto& stream = streamOf(find(handle), handle);
    return stream.write(bytes.begin(), count).attach(kj::mv(bytes)).then([count]() {
      return objectWith("bytes", [&](JsonValue::Builder value) { value.setNumber(count); });
    });
  }
  refuse(kj::str("what is to be written stands in \"base64\""));
}

void RpcSession::taskFailed(kj::Exception&&) {}

}  // namespace troupe::realm
