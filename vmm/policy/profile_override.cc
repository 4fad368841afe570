#include "vmm/policy/profile_override.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/launcher.h"
#include "vmm/actors/child_log.h"
#include "vmm/policy/compiler_profile.h"
#include "vmm/policy/profile_folder.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

// Six profiles with filters of the largest size there is are 1 MiB.
constexpr size_t MOST_RESULT_BYTES = 4 << 20;
constexpr kj::Duration DEADLINE = 20 * kj::SECONDS;
constexpr size_t LONGEST_MISTAKE = 400;
constexpr uint MOST_LOOSER = 10;  // parts of a profile that are told

struct Pipe {
  kj::AutoCloseFd read;
  kj::AutoCloseFd write;
};

Pipe makePipe() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

void fill(kj::ArrayPtr<const ProfileText> texts, capnp::List<ProfileFile>::Builder files) {
  for (size_t i = 0; i < texts.size(); i++) {
    files[i].setPath(texts[i].path);
    files[i].setText(texts[i].text);
  }
}

// That a profile is to be as tight as another one.
struct Against {
  kj::StringPtr path;  // of the profile built in that both replace
  kj::ArrayPtr<const ProfileText> texts;
};

void fillRequest(kj::StringPtr folder, kj::ArrayPtr<const ProfileText> texts,
                 kj::Maybe<const Against&> against, CompileRequest::Builder request) {
  request.setFolder(folder);
  fill(texts, request.initFiles(texts.size()));
  KJ_IF_MAYBE (other, against) {
    request.setAgainstPath(other->path);
    fill(other->texts, request.initAgainst(other->texts.size()));
  }
}

// `check` looks at what the compiler says beside the profiles, and throws what it makes of it.
template <typename Check>
ActorProfiles readResult(kj::StringPtr folder, kj::ArrayPtr<const kj::byte> bytes,
                         kj::Vector<ProfileText> texts, Check&& check) {
  auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  memcpy(words.begin(), bytes.begin(), words.asBytes().size());
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * MOST_RESULT_BYTES / sizeof(capnp::word);
  options.nestingLimit = 16;
  capnp::FlatArrayMessageReader message(words, options);
  auto result = message.getRoot<CompileResult>();
  check(result);
  return ActorProfiles(folder, result, kj::mv(texts));
}

// One run of the compiler, jailed even where the VM's actors are not to be.
class Compilation {
 public:
  Compilation(kj::AsyncIoContext& io, sandbox::Launcher& launcher, int program,
              kj::StringPtr folder, kj::ArrayPtr<const ProfileText> texts,
              kj::Maybe<const Against&> against = nullptr)
      : folder(kj::heapString(folder)), timer(io.provider->getTimer()) {
    capnp::MallocMessageBuilder message;
    fillRequest(folder, texts, against, message.initRoot<CompileRequest>());
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
  auto texts = readProfileFolder(folder);
  auto compilation = kj::heap<Compilation>(io, *launcher, program, folder, texts);
  auto done = compilation->run();
  return done.attach(kj::mv(compilation))
      .attach(kj::mv(launcher))
      .then([folder = kj::heapString(folder),
             texts = kj::mv(texts)](kj::Array<kj::byte> read) mutable {
        return readResult(folder, read, kj::mv(texts), [](CompileResult::Reader) {});
      });
}

kj::Promise<kj::Own<ActorProfiles>> compileProfile(kj::AsyncIoContext& io,
                                                   sandbox::Launcher& launcher, int program,
                                                   kj::StringPtr path,
                                                   kj::ArrayPtr<const kj::byte> text,
                                                   const sandbox::Profile& builtIn,
                                                   kj::Maybe<const ActorProfiles&> inForce) {
  kj::Vector<ProfileText> texts;
  texts.add(ProfileText{kj::heapString(builtIn.source), kj::heapArray<kj::byte>(text)});
  auto against = inForce.map([&](const ActorProfiles& profiles) {
    return Against{builtIn.source, profiles.texts()};
  });
  auto compilation =
      kj::heap<Compilation>(io, launcher, program, path, texts,
                            against.map([](Against& one) -> const Against& { return one; }));
  auto done = compilation->run();
  return done.attach(kj::mv(compilation))
      .then([path = kj::heapString(path), inTree = kj::str(path, "/", builtIn.source),
             actor = builtIn.actor, texts = kj::mv(texts)](kj::Array<kj::byte> read) mutable {
        // "FILE:3:1: …" of a profile that the compiler knows by another name.
        auto named = [&](kj::StringPtr said) {
          kj::Vector<char> text;
          for (size_t i = 0; i < said.size();) {
            bool isIt = said.slice(i).startsWith(inTree);
            if (isIt) text.addAll(path);
            if (!isIt) text.add(said[i]);
            i += isIt ? inTree.size() : 1;
          }
          text.add('\0');
          return escape(kj::String(text.releaseAsArray()), LONGEST_MISTAKE);
        };
        auto check = [&](CompileResult::Reader result) {
          auto errors = result.getErrors();
          if (errors.size() > 0) UserError(codes::DEVICE_PROFILE, named(errors[0])).raise();
          auto looser = result.getLooser();
          if (looser.size() == 0) return;
          UserError error(codes::LOOSER_PROFILE, kj::str("the profile ", quote(path), " lets ",
                                                         actor, " do more than the one in force"));
          for (uint i = 0; i < kj::min(looser.size(), MOST_LOOSER); i++)
            error.cause(named(looser[i]));
          if (looser.size() > MOST_LOOSER) {
            error.cause(kj::str("and ", looser.size() - MOST_LOOSER, " more"));
          }
          error.advice("mend", "leave that out of it, or say --allow-looser").raise();
        };
        return kj::heap<ActorProfiles>(readResult(path, read, kj::mv(texts), check));
      });
}

}  // namespace troupe
