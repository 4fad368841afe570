#include "devices/blk/disk_tool_main.h"

#include <capnp/serialize.h>
#include <errno.h>
#include <kj/exception.h>
#include <unistd.h>

#include <cstring>

#include "devices/blk/disk_tool.h"
#include "sandbox/actor_setup.h"
#include "sandbox/last_words.h"

namespace troupe::blk {
namespace {

// Whether troupe is still there and wants the rest.
bool mayGoOn(int socket) {
  char word;
  ssize_t got;
  do {
    got = read(socket, &word, 1);
  } while (got < 0 && errno == EINTR);
  return got == 1;
}

void send(int socket, capnp::MessageBuilder& report) {
  capnp::writeMessageToFd(socket, report);
  bool isOver = !report.getRoot<DiskToolReport>().isProgress();
  if (!isOver && !mayGoOn(socket)) _exit(1);
}

// An error of the image's is a result like others; anything else is this process's end.
void reportFailure(int socket, const kj::Exception& exception) {
  const char* text = strstr(exception.getDescription().cStr(), "TRP-");
  if (text == nullptr) kj::throwFatalException(kj::cp(exception));
  capnp::MallocMessageBuilder message;
  message.initRoot<DiskToolReport>().setFailed(text);
  capnp::writeMessageToFd(socket, message);
}

void play() {
  sandbox::ActorSetup setup;
  auto request = setup.config<DiskToolRequest>();
  int socket = setup.fd("report");
  DiskToolFiles files{setup.fd("disk"), kj::heapArray<int>(setup.fdCount("backing"))};
  for (uint32_t i = 0; i < files.backing.size(); i++)
    files.backing[i] = setup.fd("backing", i);
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 DiskTool tool(request, files,
                               [socket](capnp::MessageBuilder& report) { send(socket, report); });
                 setup.enter("run");
                 tool.serve();
               })) {
    reportFailure(socket, *exception);
  }
}

}  // namespace

int diskToolMain() {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(play)) {
    sandbox::sayLastWords("the disk tool ends", *exception);
    _exit(1);
  }
  _exit(0);
}

}  // namespace troupe::blk
