#include "vmm/disk/disk_tool.h"

#include <capnp/serialize-async.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/blk/disk_tool_profile.h"
#include "sandbox/fair_loop.h"
#include "sandbox/launcher.h"
#include "vmm/actors/child_log.h"
#include "vmm/actors/programs.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

constexpr kj::Duration SILENCE = 20 * kj::SECONDS;
constexpr uint64_t MOST_REPORT_WORDS = 2048;  // 32 findings or two names, several times over

struct Ends {
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};

Ends makePipe() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

Ends makeSockets() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

void fillImage(const ToolImage& image, DiskToolRequest::Builder request) {
  request.setPath(image.path);
  auto backing = request.initBacking(image.backing.size());
  for (size_t i = 0; i < backing.size(); i++) {
    backing[i].setPath(image.backing[i].path);
    backing[i].setFormat(image.backing[i].format == DiskFormat::RAW ? BlkConfig::Format::RAW
                                                                    : BlkConfig::Format::QCOW2);
  }
}

// One run of the actor, jailed always.
class ToolRun {
 public:
  ToolRun(kj::AsyncIoContext& io, const ToolImage& image,
          kj::FunctionParam<void(DiskToolRequest::Builder)>& fill, DiskToolReport::Which expected,
          kj::Function<void(uint64_t, uint64_t)>& progress)
      : path(kj::heapString(image.path)),
        expected(expected),
        progress(progress),
        timer(io.provider->getTimer()),
        launcher(io.unixEventPort, sandbox::Jail::ON) {
    capnp::MallocMessageBuilder message;
    auto request = message.initRoot<DiskToolRequest>();
    fillImage(image, request);
    fill(request);
    auto log = makePipe();
    auto reports = makeSockets();
    kj::Vector<sandbox::HandedFd> fds;
    fds.add(sandbox::HandedFd{"log", 0, log.theirs});
    fds.add(sandbox::HandedFd{"report", 0, reports.theirs});
    fds.add(sandbox::HandedFd{"disk", 0, image.disk});
    for (uint32_t i = 0; i < image.backingFds.size(); i++)
      fds.add(sandbox::HandedFd{"backing", i, image.backingFds[i]});
    child = launcher.launch(DISK_TOOL_PROFILE, openDevicesProgram(), "troupe-disk-tool",
                            "the disk tool", fds, message.getRoot<capnp::AnyPointer>().asReader());
    words =
        kj::heap<ChildLog>(io.lowLevelProvider->wrapInputFd(kj::mv(log.ours)), "disk-tool", timer);
    stream = io.lowLevelProvider->wrapSocketFd(kj::mv(reports.ours));
  }
  KJ_DISALLOW_COPY(ToolRun);

  kj::Promise<ToolAnswer> run() {
    return child->started().then([this]() { return readReports(); });
  }

 private:
  template <typename T>
  kj::Promise<T> inTime(kj::Promise<T>&& promise) {
    return promise.exclusiveJoin(timer.afterDelay(SILENCE).then([this]() -> T {
      failed(kj::str("gave no sign of life for ", SILENCE / kj::SECONDS, " s"));
    }));
  }

  kj::Promise<ToolAnswer> readReports() {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = MOST_REPORT_WORDS;
    options.nestingLimit = 8;
    auto next =
        capnp::tryReadMessage(*stream, options)
            .then([](kj::Maybe<kj::Own<capnp::MessageReader>> read) { return copied(read); })
            .catch_([this](kj::Exception&&) -> kj::Maybe<ToolAnswer> {
              failed("answered what is no report");
            });
    return inTime(kj::mv(next)).then([this](kj::Maybe<ToolAnswer> read) -> kj::Promise<ToolAnswer> {
      KJ_IF_MAYBE (message, read) {
        return take(kj::mv(*message));
      }
      return inTime(child->onExit()).then([this](int status) -> ToolAnswer {
        failed(status == 0 ? kj::str("ended without an answer") : describeWaitStatus(status));
      });
    });
  }

  // Every pointer of it is followed here, so nothing of it can be wrong later on.
  static kj::Maybe<ToolAnswer> copied(kj::Maybe<kj::Own<capnp::MessageReader>>& read) {
    KJ_IF_MAYBE (message, read) {
      auto copy = kj::heap<capnp::MallocMessageBuilder>();
      copy->setRoot((*message)->getRoot<DiskToolReport>());
      return kj::mv(copy);
    }
    return nullptr;
  }

  kj::Promise<ToolAnswer> take(ToolAnswer message) {
    auto report = message->getRoot<DiskToolReport>().asReader();
    if (report.isProgress()) {
      progress(report.getProgress().getDone(), report.getProgress().getTotal());
      static constexpr kj::byte GO_ON = 1;
      // It may have ended meanwhile; the next read tells.
      return stream->write(&GO_ON, 1).catch_([](kj::Exception&&) {}).then([this]() {
        return readReports();
      });
    }
    if (report.isFailed()) refuse(report.getFailed());
    if (report.which() != expected) failed("answered what it was not asked");
    return inTime(child->onExit()).then([this, message = kj::mv(message)](int status) mutable {
      if (status != 0) failed(describeWaitStatus(status));
      return kj::mv(message);
    });
  }

  [[noreturn]] void refuse(kj::StringPtr why) {
    kj::Exception said(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::heapString(why));
    wrapActorError(said, codes::DISK_TOOL, kj::str("disk ", quote(path), " cannot be used so"))
        .raise();
  }

  [[noreturn]] void failed(kj::StringPtr how) {
    UserError error(codes::DISK_TOOL,
                    kj::str("the process that looks into disk ", quote(path), " ", how));
    KJ_IF_MAYBE (refused, child->refusedCall()) {
      error.cause(kj::str("its jail allows no ", refused->call));
    }
    for (auto& line : words->lastWords())
      error.cause(line);
    error.raise();
  }

  kj::String path;
  const DiskToolReport::Which expected;
  kj::Function<void(uint64_t, uint64_t)>& progress;
  kj::Timer& timer;
  sandbox::Launcher launcher;
  kj::Own<sandbox::Child> child;
  kj::Own<ChildLog> words;
  kj::Own<kj::AsyncIoStream> stream;
};

}  // namespace

ToolAnswer askDiskTool(const ToolImage& image,
                       kj::FunctionParam<void(DiskToolRequest::Builder)> fill,
                       DiskToolReport::Which expected,
                       kj::Function<void(uint64_t done, uint64_t total)> progress) {
  auto io = sandbox::setupFairIo();
  ToolRun run(io, image, fill, expected, progress);
  return run.run().wait(io.waitScope);
}

}  // namespace troupe
