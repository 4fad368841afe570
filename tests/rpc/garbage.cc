#include "tests/rpc/garbage.h"

#include <capnp/any.h>
#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>

#include <cstring>
#include <random>

namespace troupe::testing {
namespace {

using Bytes = std::vector<uint8_t>;
using capnp::AnyPointer;
using capnp::rpc::Message;

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The frame of one message.
template <typename Fill>
Bytes message(Fill&& fill) {
  capnp::MallocMessageBuilder builder;
  fill(builder.initRoot<Message>());
  auto words = capnp::messageToFlatArray(builder);
  auto bytes = words.asBytes();
  return Bytes(bytes.begin(), bytes.end());
}

Bytes bootstrap(Target target) {
  return message(
      [&](Message::Builder m) { m.initBootstrap().setQuestionId(target.firstQuestion); });
}

// A call of the capability that the answer to the first question is.
template <typename Fill>
Bytes call(Target target, uint32_t question, uint16_t method, Fill&& fill) {
  return message([&](Message::Builder m) {
    auto call = m.initCall();
    call.setQuestionId(target.firstQuestion + question);
    call.initTarget().initPromisedAnswer().setQuestionId(target.firstQuestion);
    call.setInterfaceId(target.interfaceId);
    call.setMethodId(method);
    fill(call);
  });
}

using Call = capnp::rpc::Call::Builder;

// One call of each method, with parameters of the right shape and no sense.
Bytes conversation(Target target) {
  Bytes all = bootstrap(target);
  for (uint16_t method = 0; method < target.methodCount; ++method) {
    all = all + call(target, method + 1, method, [](Call call) {
            auto params = call.initParams().getContent().initAsAnyStruct(4, 4);
            params.getDataSection()[0] = 1;
          });
  }
  return all;
}

// A segment of raw words behind the header that announces it.
Bytes frame(const std::vector<uint64_t>& words) {
  uint32_t header[2] = {0, uint32_t(words.size())};
  Bytes bytes(sizeof(header) + words.size() * 8);
  memcpy(bytes.data(), header, sizeof(header));
  memcpy(bytes.data() + sizeof(header), words.data(), words.size() * 8);
  return bytes;
}

// Parameters whose pointers lead `depth` structs down.
void deepen(AnyPointer::Builder pointer, int depth) {
  auto at = pointer.initAsAnyStruct(4, 4);
  for (int i = 0; i < depth; ++i) {
    for (uint16_t p = 1; p < 4; ++p)
      at.getPointerSection()[p].setAs<capnp::Text>("text");
    at = at.getPointerSection()[0].initAsAnyStruct(4, 4);
  }
}

void addRandom(std::vector<Garbage>& list, std::mt19937& random) {
  for (size_t size : {1, 7, 8, 64, 1000, 20000}) {
    Bytes bytes(size);
    for (auto& byte : bytes)
      byte = random();
    list.push_back({"random " + std::to_string(size), bytes});
    // The same behind a header that announces just that much.
    uint32_t header[2] = {0, uint32_t(size / 8)};
    Bytes framed(sizeof(header));
    memcpy(framed.data(), header, sizeof(header));
    list.push_back({"framed random " + std::to_string(size), framed + bytes});
  }
}

void addFrames(std::vector<Garbage>& list) {
  auto header = [&](const char* name, std::vector<uint32_t> words) {
    Bytes bytes(words.size() * 4);
    memcpy(bytes.data(), words.data(), bytes.size());
    list.push_back({name, bytes});
  };
  header("no segment", {0xffffffff, 0});
  header("2^32-1 segments", {0xfffffffe, 0});
  header("512 segments", {511, 1});
  header("a segment of 2^32-1 words", {0, 0xffffffff});
  header("two segments whose sum overflows", {1, 0xffffffff, 0xffffffff, 0});
  header("an empty message", {0, 0});
  header("half a header", {0});
}

void addSpoilt(std::vector<Garbage>& list, Target target, std::mt19937& random) {
  Bytes honest = conversation(target);
  for (size_t cut = 4; cut < honest.size(); cut += 52)
    list.push_back({"cut at " + std::to_string(cut), Bytes(honest.begin(), honest.begin() + cut)});
  for (int round = 0; round < 40; ++round) {
    Bytes flipped = honest;
    for (int i = 0; i <= round % 4; ++i)
      flipped[random() % flipped.size()] ^= 1 << random() % 8;
    list.push_back({"bits flipped " + std::to_string(round), flipped});
  }
}

void addProtocol(std::vector<Garbage>& list, Target target) {
  Bytes start = bootstrap(target);
  auto add = [&](const char* name, auto&& fill) { list.push_back({name, start + message(fill)}); };
  add("a return nobody asked for",
      [](Message::Builder m) { m.initReturn().setAnswerId(0x7fffffff); });
  add("a finish of nothing", [](Message::Builder m) { m.initFinish().setQuestionId(99); });
  add("a release of all there is", [](Message::Builder m) {
    auto release = m.initRelease();
    release.setId(0);
    release.setReferenceCount(0xffffffff);
  });
  add("a resolution of nothing", [](Message::Builder m) {
    auto resolve = m.initResolve();
    resolve.setPromiseId(7);
    resolve.initCap().setReceiverHosted(12345);
  });
  add("a disembargo of nothing", [](Message::Builder m) {
    auto disembargo = m.initDisembargo();
    disembargo.initTarget().setImportedCap(12345);
    disembargo.getContext().setSenderLoopback(1);
  });
  add("a disembargo that never began", [&](Message::Builder m) {
    auto disembargo = m.initDisembargo();
    disembargo.initTarget().initPromisedAnswer().setQuestionId(target.firstQuestion);
    disembargo.getContext().setReceiverLoopback(9);
  });
  add("a third party", [](Message::Builder m) { m.initProvide().setQuestionId(5); });
  add("an acceptance", [](Message::Builder m) { m.initAccept().setQuestionId(5); });
  add("a join", [](Message::Builder m) { m.initJoin().setQuestionId(5); });
  add("an abort", [](Message::Builder m) { m.initAbort().setReason("because"); });
  add("an echo", [](Message::Builder m) { m.initUnimplemented().initFinish(); });
  add("a call of no interface", [](Message::Builder m) {
    auto call = m.initCall();
    call.setQuestionId(1);
    call.initTarget().setImportedCap(0);
    call.setInterfaceId(0x1122334455667788);
  });
  list.push_back({"the same question twice", start + start});
  list.push_back({"a method that is not there", start + call(target, 1, 0xffff, [](Call) {})});
  list.push_back({"results for somebody else", start + call(target, 1, 0, [](Call call) {
                                                 call.getSendResultsTo().initThirdParty();
                                               })});
  list.push_back(
      {"an answer's answer's answer", start + call(target, 1, 0, [](Call call) {
                                        auto target = call.getTarget();
                                        auto steps = target.getPromisedAnswer().initTransform(5000);
                                        for (auto step : steps)
                                          step.setGetPointerField(0xffff);
                                      })});
  list.push_back({"5000 capabilities", start + call(target, 1, 0, [](Call call) {
                                         auto caps = call.initParams().initCapTable(5000);
                                         for (uint32_t i = 0; i < 5000; ++i)
                                           caps[i].setSenderHosted(i);
                                       })});
  list.push_back({"capabilities that are ours", start + call(target, 1, 1, [](Call call) {
                                                  auto params = call.initParams();
                                                  auto caps = params.initCapTable(3);
                                                  caps[0].setReceiverHosted(0);
                                                  caps[1].setReceiverHosted(77);
                                                  caps[2].initReceiverAnswer().setQuestionId(1);
                                                })});
  Bytes many = start;
  for (uint32_t i = 1; i < 2000; ++i)
    many = many + call(target, i, i % target.methodCount, [](Call) {});
  list.push_back({"2000 questions none of which is finished", many});
}

void addPointers(std::vector<Garbage>& list, Target target) {
  for (uint16_t method = 0; method < target.methodCount; ++method) {
    auto add = [&](std::string name, auto&& fill) {
      list.push_back({name + " to method " + std::to_string(method),
                      bootstrap(target) + call(target, 1, method, fill)});
    };
    add("deep parameters", [](Call call) { deepen(call.initParams().getContent(), 1000); });
    add("lists in place of structs", [](Call call) {
      auto params = call.initParams().getContent().initAsAnyStruct(8, 8);
      for (uint16_t p = 0; p < 8; ++p)
        params.getPointerSection()[p].initAsAnyList(capnp::ElementSize::BIT, 4096);
    });
    add("lists of 2^29-1 nothings", [](Call call) {
      auto params = call.initParams().getContent().initAsAnyStruct(8, 8);
      for (uint16_t p = 0; p < 8; ++p)
        params.getPointerSection()[p].initAsAnyList(capnp::ElementSize::VOID, (1 << 29) - 1);
    });
    add("lists of 2^29-1 empty structs", [](Call call) {
      auto params = call.initParams().getContent().initAsAnyStruct(8, 8);
      for (uint16_t p = 0; p < 8; ++p)
        params.getPointerSection()[p].initAsListOfAnyStruct(0, 0, (1 << 29) - 1);
    });
    add("text without an end", [](Call call) {
      auto params = call.initParams().getContent().initAsAnyStruct(8, 8);
      for (uint16_t p = 0; p < 8; ++p) {
        auto bytes = params.getPointerSection()[p].initAs<capnp::Data>(100);
        memset(bytes.begin(), 'x', bytes.size());
      }
    });
  }
  list.push_back({"a root that is its own child", frame({0x0001'0000'ffff'fffc, 0})});
  list.push_back({"a root behind the end", frame({0x0001'0001'7fff'fffc})});
  list.push_back({"a far pointer to no segment", frame({0x0000'0009'0000'0002})});
  list.push_back({"a far pointer to itself", frame({0x0000'0000'0000'0002})});
  list.push_back({"a capability as the root", frame({0x0000'0000'0000'0003})});
}

}  // namespace

std::vector<Garbage> garbage(Target target) {
  std::mt19937 random(1);
  std::vector<Garbage> list;
  addRandom(list, random);
  addFrames(list);
  addSpoilt(list, target, random);
  addProtocol(list, target);
  addPointers(list, target);
  return list;
}

}  // namespace troupe::testing
