#include "vmm/profile_override.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/launcher.h"
#include "vmm/child_log.h"
#include "vmm/policy/compiler_profile.h"
#include "vmm/profile_folder.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"
#include "vmm/wait_status.h"

namespace troupe {

namespace {

// Six profiles with filters of the largest size there is are 1 MiB.
constexpr size_t MOST_RESULT_BYTES = 4 << 20;
constexpr kj::Duration DEADLINE = 20 * kj::SECONDS;
constexpr size_t LONGEST_MISTAKE = 400;

struct Pipe {
  kj::AutoCloseFd read;
  kj::AutoCloseFd write;
};

Pipe makePipe() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

void fillRequest(kj::StringPtr folder, kj::ArrayPtr<const ProfileText> texts,
                 CompileRequest::Builder request) {
  request.setFolder(folder);
  auto files = request.initFiles(texts.size());
  for (size_t i = 0; i < texts.size(); i++) {
    files[i].setPath(texts[i].path);
    files[i].setText(texts[i].text);
  }
}

// `errors` is told what is wrong with the profiles, and throws.
template <typename Errors>
ActorProfiles readResult(kj::StringPtr folder, kj::ArrayPtr<const kj::byte> bytes,
                         Errors&& errors) {
  auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  memcpy(words.begin(), bytes.begin(), words.asBytes().size());
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * MOST_RESULT_BYTES / sizeof(capnp::word);
  options.nestingLimit = 16;
  capnp::FlatArrayMessageReader message(words, options);
  auto result = message.getRoot<CompileResult>();
  if (result.getErrors().size() > 0) errors(result.getErrors()[0]);
  return ActorProfiles(folder, result);
}

// One run of the compiler, jailed even where the VM's actors are not to be.
class Compilation {
 public:
  Compilation(kj::AsyncIoContext& io, sandbox::Launcher& launcher, int program,
              kj::StringPtr folder, kj::ArrayPtr<const ProfileText> texts)
      : folder(kj::heapString(folder)), timer(io.provider->getTimer()) {
    capnp::MallocMessageBuilder message;
    fillRequest(folder, texts, message.initRoot<CompileRequest>());
    auto log = makePipe();
    auto result = makePipe();
    sandbox::HandedFd fds[] = {{"log", 0, log.write}, {"result", 0, result.write}};
    child = launcher.launch(COMPILER_PROFILE, program, "troupe-compiler", "the profile compiler",
                            fds, message.getRoot<capnp::AnyPointer>().asReader());
    words =
        kj::heap<ChildLog>(io.lowLevelProvider->wrapInputFd(kj::mv(log.read)), "compiler", timer);
    answer = io.lowLevelProvider->wrapInputFd(kj::mv(result.read));
  }
  KJ_DISALLOW_COPY(Compilation);

  // What the compiler says.
  kj::Promise<kj::Array<kj::byte>> run() {
    auto late = timer.afterDelay(DEADLINE).then([this]() -> kj::Array<kj::byte> {
      failed(kj::str("did not end within ", DEADLINE / kj::SECONDS, " s"));
    });
    return child->started()
        .then([this]() { return answer->readAllBytes(MOST_RESULT_BYTES); })
        .then([this](kj::Array<kj::byte> read) { return ifItEndedWell(kj::mv(read)); })
        .exclusiveJoin(kj::mv(late));
  }

 private:
  kj::Promise<kj::Array<kj::byte>> ifItEndedWell(kj::Array<kj::byte> read) {
    return child->onExit().then(
        [this, read = kj::mv(read)](int status) mutable -> kj::Array<kj::byte> {
          if (status != 0) failed(describeWaitStatus(status));
          return kj::mv(read);
        });
  }

  [[noreturn]] void failed(kj::StringPtr how) {
    UserError error(codes::PROFILE_COMPILER,
                    kj::str("the compiler of the profiles in ", quote(folder), " ", how));
    KJ_IF_MAYBE (refused, child->refusedCall()) {
      error.cause(kj::str("its jail allows no ", refused->call));
    }
    for (auto& line : words->lastWords())
      error.cause(line);
    error.raise();
  }

  kj::String folder;
  kj::Timer& timer;
  kj::Own<sandbox::Child> child;
  kj::Own<ChildLog> words;
  kj::Own<kj::AsyncInputStream> answer;
};

}  // namespace

kj::Promise<ActorProfiles> overrideProfiles(kj::AsyncIoContext& io, int program,
                                            kj::StringPtr folder) {
  auto launcher = kj::heap<sandbox::Launcher>(io.unixEventPort, sandbox::Jail::ON);
  auto compilation =
      kj::heap<Compilation>(io, *launcher, program, folder, readProfileFolder(folder));
  auto done = compilation->run();
  return done.attach(kj::mv(compilation))
      .attach(kj::mv(launcher))
      .then([folder = kj::heapString(folder)](kj::Array<kj::byte> read) {
        return readResult(folder, read, [](kj::StringPtr) {});
      });
}

kj::Promise<kj::Own<ActorProfiles>> compileProfile(kj::AsyncIoContext& io,
                                                   sandbox::Launcher& launcher, int program,
                                                   kj::StringPtr path,
                                                   kj::ArrayPtr<const kj::byte> text,
                                                   const sandbox::Profile& builtIn) {
  kj::Vector<ProfileText> texts;
  texts.add(ProfileText{kj::heapString(builtIn.source), kj::heapArray<kj::byte>(text)});
  auto compilation = kj::heap<Compilation>(io, launcher, program, path, texts);
  auto done = compilation->run();
  return done.attach(kj::mv(compilation))
      .then([path = kj::heapString(path),
             inTree = kj::str(path, "/", builtIn.source)](kj::Array<kj::byte> read) {
        return kj::heap<ActorProfiles>(readResult(path, read, [&](kj::StringPtr mistake) {
          // "FILE:3:1: …" of a profile that the compiler knows by another name.
          auto said = mistake.startsWith(inTree) ? kj::str(path, mistake.slice(inTree.size()))
                                                 : kj::heapString(mistake);
          UserError(codes::DEVICE_PROFILE, escape(said, LONGEST_MISTAKE)).raise();
        }));
      });
}

}  // namespace troupe
