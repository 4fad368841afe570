#include "tests/vm/realm_hostile/cases.h"

#include <capnp/any.h>
#include <capnp/capability.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protos/realm.capnp.h"
#include "tests/vm/realm_hostile/raw_client.h"

namespace troupe::hostile {

namespace {

using capnp::rpc::CapDescriptor;
using capnp::rpc::Message;
using capnp::rpc::Return;
using Heard = RawClient::Heard;
using Fill = kj::Function<void(Message::Builder)>;

constexpr uint16_t FIRST_POINTER[] = {
    0};  // Manager.create().realm, Realm.launchInstance().controller
constexpr uint32_t LAST_QUESTION = 900000;  // those of the cases are below

void tell(kj::StringPtr became, kj::StringPtr what) {
  printf("%s: %s\n", became.cStr(), what.cStr());
}

kj::StringPtr nameOf(Heard heard) {
  switch (heard) {
    case Heard::MESSAGE:
      return "answered";
    case Heard::HUNG_UP:
      return "hung up";
    case Heard::NOTHING:
      return "stuck";
  }
  KJ_UNREACHABLE;
}

// What is kept while the test looks at the others: until standard input ends.
void keepUntilTold() {
  printf("done\n");
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
}

template <typename Params>
void call(Message::Builder message, uint32_t question, uint16_t method, uint32_t on,
          kj::ArrayPtr<const uint16_t> fields,
          kj::Function<void(typename Params::Builder, kj::ArrayPtr<CapDescriptor::Builder>)> fill,
          uint64_t interfaceId, kj::uint capabilities = 0) {
  auto call = message.initCall();
  call.setQuestionId(question);
  setPromised(call.initTarget(), on, fields);
  call.setInterfaceId(interfaceId);
  call.setMethodId(method);
  auto payload = call.initParams();
  auto list = payload.initCapTable(capabilities);
  auto descriptors = kj::heapArrayBuilder<CapDescriptor::Builder>(capabilities);
  for (auto one : list)
    descriptors.add(one);
  capnp::BuilderCapabilityTable table;  // numbers capabilities in the order in which they are set
  auto content = table.imbue(payload.getContent());
  fill(content.initAs<Params>(), descriptors.asPtr());
}

constexpr uint16_t CREATE = 0, LIST = 1;                  // of Manager
constexpr uint16_t LAUNCH = 0;                            // of Realm
constexpr uint16_t WAIT_FOR_END = 6, WAIT_FOR_START = 7;  // of Guest

void list(Message::Builder message, uint32_t question, uint32_t manager) {
  call<realm::Manager::ListParams>(
      message, question, LIST, manager, nullptr, [](auto, auto) {},
      capnp::typeId<realm::Manager>());
}

void create(Message::Builder message, uint32_t question, uint32_t manager) {
  call<realm::Manager::CreateParams>(
      message, question, CREATE, manager, nullptr,
      [](realm::Manager::CreateParams::Builder params, auto) { params.setLabel("hostile"); },
      capnp::typeId<realm::Manager>());
}

using FillLaunch =
    kj::Function<void(realm::LaunchInfo::Builder, kj::ArrayPtr<CapDescriptor::Builder>)>;

void launch(Message::Builder message, uint32_t question, uint32_t realm, FillLaunch fill,
            kj::uint capabilities = 0) {
  call<realm::Realm::LaunchInstanceParams>(
      message, question, LAUNCH, realm, FIRST_POINTER,
      [&](realm::Realm::LaunchInstanceParams::Builder params, auto descriptors) {
        fill(params.initLaunchInfo(), descriptors);
      },
      capnp::typeId<realm::Realm>(), capabilities);
}

// Of the guest that question `launched` is answered with.
void waitFor(Message::Builder message, uint32_t question, uint16_t method, uint32_t launched) {
  call<realm::Guest::WaitForEndParams>(
      message, question, method, launched, FIRST_POINTER, [](auto, auto) {},
      capnp::typeId<realm::Guest>());
}

// Whether a client that has said anything at all is answered still, or has been cut off.
Heard stillAnswered(RawClient& client) {
  bool said = client.bootstrap(LAST_QUESTION) &&
              client.say([](auto message) { list(message, LAST_QUESTION + 1, LAST_QUESTION); });
  return said ? client.hearAnswer(LAST_QUESTION + 1) : Heard::HUNG_UP;
}

struct Saying {
  kj::StringPtr what;
  Fill fill;
};

// Messages that are whole, and out of any order.
kj::Array<Saying> disorderly() {
  kj::Vector<Saying> all;
  auto add = [&](kj::StringPtr what, Fill fill) { all.add(Saying{what, kj::mv(fill)}); };
  add("a call on what nobody exported", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().getTarget().setImportedCap(77);
  });
  add("a call on the answer of no question",
      [](Message::Builder message) { list(message, 5, 99); });
  add("a call with the number of a question",
      [](Message::Builder message) { list(message, 1, 1); });
  add("a call on a field that no answer has", [](Message::Builder message) {
    constexpr uint16_t FIELDS[] = {65535, 65535};
    list(message, 5, 1);
    setPromised(message.getCall().getTarget(), 1, FIELDS);
  });
  add("a call of an unknown interface", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().setInterfaceId(0x1234567890abcdef);
  });
  add("a call of an unknown method", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().setMethodId(65535);
  });
  add("a call of a realm's on the manager", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().setInterfaceId(capnp::typeId<realm::Realm>());
  });
  add("a call without parameters", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().disownParams();
  });
  add("a call without a target", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().disownTarget();
  });
  add("results for oneself", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().getSendResultsTo().setYourself();
  });
  add("results for a third party", [](Message::Builder message) {
    list(message, 5, 1);
    message.getCall().getSendResultsTo().initThirdParty();
  });
  add("the end of no question",
      [](Message::Builder message) { message.initFinish().setQuestionId(5); });
  add("an answer to no question",
      [](Message::Builder message) { message.initReturn().setAnswerId(3); });
  add("an answer taken from no question",
      [](Message::Builder message) { message.initReturn().setTakeFromOtherQuestion(9); });
  add("the release of nothing, often", [](Message::Builder message) {
    auto release = message.initRelease();
    release.setId(9);
    release.setReferenceCount(0xffffffff);
  });
  add("the release of more than there is",
      [](Message::Builder message) { message.initRelease().setReferenceCount(0xffffffff); });
  add("the resolution of no promise",
      [](Message::Builder message) { message.initResolve().setPromiseId(4); });
  add("a disembargo of nothing", [](Message::Builder message) {
    message.initDisembargo().getContext().setReceiverLoopback(4);
  });
  add("a disembargo of what is no promise", [](Message::Builder message) {
    auto disembargo = message.initDisembargo();
    setPromised(disembargo.initTarget(), 1);
    disembargo.getContext().setSenderLoopback(4);
  });
  add("the same question again",
      [](Message::Builder message) { message.initBootstrap().setQuestionId(1); });
  add("provide", [](Message::Builder message) { message.initProvide(); });
  add("accept", [](Message::Builder message) { message.initAccept(); });
  add("join", [](Message::Builder message) { message.initJoin(); });
  add("an abort", [](Message::Builder message) { message.initAbort().setReason("no"); });
  add("what was not understood",
      [](Message::Builder message) { message.initUnimplemented().initCall().setQuestionId(1); });
  add("what was not understood of what was not understood", [](Message::Builder message) {
    for (int i = 0; i < 40; i++)
      message = message.initUnimplemented();
  });
  return all.releaseAsArray();
}

// Capabilities of a launch that are none.
struct Descriptor {
  kj::StringPtr what;
  kj::Function<void(CapDescriptor::Builder)> fill;
};

kj::Array<Descriptor> descriptors() {
  kj::Vector<Descriptor> all;
  auto add = [&](kj::StringPtr what, kj::Function<void(CapDescriptor::Builder)> fill) {
    all.add(Descriptor{what, kj::mv(fill)});
  };
  add("a file that is null", [](CapDescriptor::Builder file) { file.setNone(); });
  add("a file without an fd", [](CapDescriptor::Builder file) { file.setSenderHosted(3); });
  add("a file with the 200th fd", [](CapDescriptor::Builder file) {
    file.setSenderHosted(3);
    file.setAttachedFd(200);
  });
  add("a file of the other side's", [](CapDescriptor::Builder file) { file.setReceiverHosted(0); });
  add("a file of nobody's", [](CapDescriptor::Builder file) { file.setReceiverHosted(4711); });
  add("a file from no answer",
      [](CapDescriptor::Builder file) { file.initReceiverAnswer().setQuestionId(4711); });
  add("a file from the answer to itself",
      [](CapDescriptor::Builder file) { file.initReceiverAnswer().setQuestionId(3); });
  add("a file that is the realm", [](CapDescriptor::Builder file) {
    auto answer = file.initReceiverAnswer();
    answer.setQuestionId(2);
    answer.initTransform(1)[0].setGetPointerField(0);
  });
  add("a third party's file",
      [](CapDescriptor::Builder file) { file.initThirdPartyHosted().setVineId(3); });
  return all.releaseAsArray();
}

void oneDisk(realm::LaunchInfo::Builder info, kj::StringPtr bundle) {
  info.setUrl(bundle);
  auto disk = info.initBlockDevices(1)[0];
  disk.setId("x");
  disk.setFile(Handle::Client(KJ_EXCEPTION(FAILED, "stands for an entry of the table")));
}

void begin(RawClient& client) {
  KJ_REQUIRE(client.bootstrap(1));
  KJ_REQUIRE(client.say([](auto message) { create(message, 2, 1); }));
}

// The guest has ended before it ran, or was never launched.
void expectRefusal(RawClient& client, kj::StringPtr what) {
  kj::String end = kj::str("no end");
  client.say([](auto message) { waitFor(message, 4, WAIT_FOR_END, 3); });
  auto heard = client.hearAnswer(4, [&](Return::Reader answer) {
    if (answer.isException()) {
      end = kj::str(answer.getException().getReason());
    } else if (answer.isResults()) {
      auto content = answer.getResults().getContent().getAs<realm::Guest::WaitForEndResults>();
      end = kj::str(content.getEnd().getReason());
    }
  });
  if (heard == Heard::MESSAGE) end = kj::str(end.slice(0, kj::min(end.size(), size_t(80))));
  if (heard != Heard::MESSAGE) end = kj::String();
  for (char& c : end)
    c = c == '\n' ? ' ' : c;
  tell(nameOf(heard), kj::str(what, ": ", end));
}

void disorder(kj::StringPtr socket, kj::StringPtr, uint32_t) {
  for (auto& one : disorderly()) {
    RawClient client(socket);
    client.bootstrap(1);
    client.say(kj::mv(one.fill));
    tell(nameOf(stillAnswered(client)), one.what);
  }
}

void capabilities(kj::StringPtr socket, kj::StringPtr bundle, uint32_t) {
  for (auto& one : descriptors()) {
    RawClient client(socket);
    begin(client);
    client.say([&](auto message) {
      launch(
          message, 3, 2,
          [&](auto info, auto descriptors) {
            oneDisk(info, bundle);
            one.fill(descriptors[0]);
          },
          1);
    });
    expectRefusal(client, one.what);
  }
}

struct Fd {
  kj::StringPtr what;
  kj::AutoCloseFd fd;
};

kj::Array<Fd> uselessFds() {
  kj::Vector<Fd> all;
  auto add = [&](kj::StringPtr what, int fd) {
    if (fd >= 0) all.add(Fd{what, kj::AutoCloseFd(fd)});
  };
  int pair[2];
  KJ_SYSCALL(pipe2(pair, O_CLOEXEC));
  add("a pipe's end to read", pair[0]);
  add("a pipe's end to write", pair[1]);
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
  add("a socket of datagrams", pair[0]);
  add("another", pair[1]);
  add("an eventfd", eventfd(0, EFD_CLOEXEC));
  add("an epoll", epoll_create1(EPOLL_CLOEXEC));
  add("a folder", open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  add("a path", open("/proc/self/exe", O_PATH | O_CLOEXEC));
  add("a character device", open("/dev/null", O_RDWR | O_CLOEXEC));
  add("KVM", open("/dev/kvm", O_RDWR | O_CLOEXEC));
  add("a file of /proc", open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  add("a file to write alone", open("/tmp", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  add("an empty file in memory", memfd_create("hostile", MFD_CLOEXEC));
  return all.releaseAsArray();
}

void wrongFds(kj::StringPtr socket, kj::StringPtr bundle, uint32_t) {
  for (auto& one : uselessFds()) {
    for (bool asFolder : {false, true}) {
      if (asFolder && one.what == "a folder") continue;
      RawClient client(socket);
      begin(client);
      int fds[] = {one.fd.get()};
      client.say(
          [&](auto message) {
            launch(
                message, 3, 2,
                [&](auto info, auto descriptors) {
                  if (asFolder) {
                    info.setUrl(bundle);
                    auto granted = info.initFlatNamespace();
                    granted.initPaths(1).set(0, "/granted");
                    granted.initDirectories(1).set(
                        0, Handle::Client(KJ_EXCEPTION(FAILED, "stands for an entry")));
                  } else {
                    oneDisk(info, bundle);
                  }
                  descriptors[0].setSenderHosted(3);
                  descriptors[0].setAttachedFd(0);
                },
                1);
          },
          fds);
      expectRefusal(client, kj::str(one.what, asFolder ? " as a directory" : " as a disk"));
    }
  }
}

// Lists of elements without a size: they take no room in a message.
void hugeLists(kj::StringPtr socket, kj::StringPtr bundle, uint32_t number) {
  struct {
    kj::StringPtr what;
    int ofInfo;    // the pointer of LaunchInfo, or -1
    int ofConfig;  // the pointer of its GuestConfig
  } const lists[] = {
      {"memory", -1, 7},     {"disks", -1, 4},         {"networks", -1, 10},
      {"interrupts", -1, 8}, {"command words", -1, 6}, {"disks handed over", 4, -1},
  };
  for (auto& one : lists) {
    for (uint32_t count : {number, uint32_t(0x1fffffff)}) {
      RawClient client(socket);
      begin(client);
      client.say([&](auto message) {
        launch(message, 3, 2, [&](realm::LaunchInfo::Builder info, auto) {
          info.setUrl(bundle);
          auto config = info.initGuestConfig();
          capnp::AnyStruct::Builder anyInfo(kj::cp(info)), anyConfig(kj::cp(config));
          auto pointer = one.ofInfo >= 0 ? anyInfo.getPointerSection()[kj::uint(one.ofInfo)]
                                         : anyConfig.getPointerSection()[kj::uint(one.ofConfig)];
          pointer.initAsListOfAnyStruct(0, 0, count);
        });
      });
      expectRefusal(client, kj::str(count, " ", one.what));
    }
  }
  RawClient client(socket);
  begin(client);
  client.say([&](auto message) {
    launch(message, 3, 2, [&](realm::LaunchInfo::Builder info, auto) {
      info.setUrl(bundle);
      info.initLabel(200000);
    });
  });
  expectRefusal(client, "a label of 200000 zeroes");
  RawClient longer(socket);
  begin(longer);
  longer.say([&](auto message) {
    launch(message, 3, 2, [&](realm::LaunchInfo::Builder info, auto) { info.initUrl(1 << 20); });
  });
  tell(nameOf(stillAnswered(longer)), "a message of a MiB");
}

// As many calls as it likes, none of which is ever finished.
void unfinished(kj::StringPtr socket, kj::StringPtr bundle, uint32_t number) {
  RawClient client(socket);
  begin(client);
  client.say(
      [&](auto message) { launch(message, 3, 2, [&](auto info, auto) { info.setUrl(bundle); }); });
  for (uint32_t i = 0; i < number; i++) {
    if (!client.say([i](auto message) { waitFor(message, 10 + i, WAIT_FOR_END, 3); })) break;
  }
  tell(nameOf(stillAnswered(client)), kj::str(number, " calls that are never finished"));
}

// Each is taken back at once.
void takenBack(kj::StringPtr socket, kj::StringPtr bundle, uint32_t number) {
  RawClient client(socket);
  begin(client);
  client.say(
      [&](auto message) { launch(message, 3, 2, [&](auto info, auto) { info.setUrl(bundle); }); });
  for (uint32_t i = 0; i < number; i++) {
    if (!client.say([i](auto message) { waitFor(message, 10 + i, WAIT_FOR_END, 3); })) break;
    if (!client.finish(10 + i)) break;
    client.hearWhatIsThere();  // who reads nothing is not heard for long
  }
  tell(nameOf(stillAnswered(client)), kj::str(number, " calls that are taken back"));
}

// Launches with files that are promised and never come, each taken back at once.
void promises(kj::StringPtr socket, kj::StringPtr bundle, uint32_t number) {
  RawClient client(socket);
  client.patienceMs = 3000;  // nobody need read on; who looks at the others comes then
  begin(client);
  auto heard = Heard::MESSAGE;
  for (uint32_t i = 0; i < number && heard == Heard::MESSAGE; i++) {
    bool said = client.say([&](auto message) {
      launch(
          message, 10 + i, 2,
          [&](auto info, auto descriptors) {
            oneDisk(info, bundle);
            info.initLabel(255);
            descriptors[0].setSenderPromise(100 + i);
          },
          1);
    });
    if (!said || !client.finish(10 + i)) heard = Heard::NOTHING;
  }
  if (heard == Heard::MESSAGE) heard = stillAnswered(client);
  tell(nameOf(heard), kj::str(number, " launches with files that never come"));
  keepUntilTold();
}

// Asks and never listens.
void deaf(kj::StringPtr socket, kj::StringPtr, uint32_t number) {
  RawClient client(socket);
  client.patienceMs = 3000;
  client.bootstrap(1);
  bool said = true;
  for (uint32_t i = 0; i < number && said; i++) {
    said = client.say([i](auto message) { list(message, 10 + i, 1); }) && client.finish(10 + i);
  }
  tell(said ? "said" : "stuck", kj::str(number, " questions whose answers nobody reads"));
  keepUntilTold();
}

// Fds that no message speaks of.
void fds(kj::StringPtr socket, kj::StringPtr, uint32_t number) {
  RawClient client(socket);
  client.bootstrap(1);
  int copies[32];
  for (int& one : copies)
    KJ_SYSCALL(one = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  bool said = true;
  for (uint32_t i = 0; i < number && said; i++) {
    said = client.say(
        [i](auto message) {
          list(message, 10 + i, 1);
          // The last one is spoken of: an fd for a parameter that there is not.
          auto one = message.getCall().getParams().initCapTable(1)[0];
          one.setSenderHosted(3);
          one.setAttachedFd(31);
        },
        copies);
    said = said && client.hearAnswer(10 + i) == Heard::MESSAGE && client.finish(10 + i);
  }
  tell(nameOf(stillAnswered(client)), kj::str(number, " messages with 32 fds each"));
  keepUntilTold();
}

// Goes at every moment of a launch.
void leaves(kj::StringPtr socket, kj::StringPtr bundle, uint32_t number) {
  for (uint32_t i = 0; i < number; i++) {
    RawClient client(socket);
    begin(client);
    client.say([&](auto message) {
      launch(message, 3, 2, [&](auto info, auto) { info.setUrl(bundle); });
    });
    client.say([](auto message) { waitFor(message, 4, WAIT_FOR_START, 3); });
    // Manager, realm, guest and its start are answered in this order; the last one may not be.
    for (uint32_t heard = 0; heard < i % 5; heard++) {
      if (client.hearAnswer(heard + 1) != Heard::MESSAGE) break;
    }
  }
  tell("said", kj::str(number, " launches whose client left"));
}

// Half of a message each, and no more.
void halves(kj::StringPtr socket, kj::StringPtr, uint32_t number) {
  kj::Vector<kj::Own<RawClient>> all;
  constexpr kj::byte HALF[] = {0, 0, 0, 0, 100, 0, 0, 0, 1, 2, 3};
  for (uint32_t i = 0; i < number; i++) {
    all.add(kj::heap<RawClient>(socket));
    all.back()->sayBytes(HALF);
  }
  tell("said", kj::str(number, " halves of messages"));
  keepUntilTold();
}

const Case CASES[] = {
    {"disorder", disorder},
    {"capabilities", capabilities},
    {"wrong-fds", wrongFds},
    {"huge-lists", hugeLists},
    {"unfinished", unfinished},
    {"taken-back", takenBack},
    {"promises", promises},
    {"deaf", deaf},
    {"fds", fds},
    {"leaves", leaves},
    {"halves", halves},
};

}  // namespace

kj::ArrayPtr<const Case> allCases() {
  return CASES;
}

}  // namespace troupe::hostile
