#include "vmm/record/recording_file.h"

#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cstddef>

#include "devices/virtio/flight_log.h"
#include "protos/recording.capnp.h"
#include "sandbox/shared_memory.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::AutoCloseFd makeFile(kj::StringPtr path) {
  int fd = open(path.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  UserError(codes::RECORD_FILE, kj::str("--record: ", quote(path), " cannot be made: ",
                                        errnoText(error), "; a recording is a new file"))
      .advice("see", kj::str("ls -ld ", shellWord(path)))
      .raise();
}

}  // namespace

void RecordingFile::begin(kj::StringPtr kind, kj::StringPtr program,
                          kj::Maybe<capnp::AnyPointer::Reader> config) const {
  capnp::MallocMessageBuilder message;
  auto head = message.initRoot<Recording>();
  head.setVersion(Recording::CURRENT_VERSION);
  head.setDevice(device);
  head.setKind(kind);
  head.setProgram(program);
  KJ_IF_MAYBE (given, config) {
    head.getConfig().set(*given);
  }
  KJ_IF_MAYBE (failure,
               kj::runCatchingExceptions([&] { capnp::writeMessageToFd(file, message); })) {
    UserError(codes::RECORD_FILE, kj::str("--record: ", quote(path), " cannot be written"))
        .cause(failure->getDescription())
        .advice("see", kj::str("df ", shellWord(path)))
        .raise();
  }
}

void RecordingFile::close() const {
  uint32_t full = 1;
  // The page is there, and its length is fixed: it cannot fail.
  ssize_t done = pwrite(memory, &full, sizeof(full), offsetof(virtio::FlightLog::Head, isFull));
  KJ_ASSERT(done == sizeof(full));
}

kj::Array<RecordingFile> openRecordings(const RecordPlans& plans) {
  kj::Vector<RecordingFile> made;
  for (auto& plan : plans.devices) {
    auto memory = sandbox::makeSharedMemory("recording", plans.limitBytes);
    auto file = makeFile(plan.path);
    auto trial = kj::heap<TrialFile>(plan.path, file);
    made.add(RecordingFile{kj::heapString(plan.device), kj::heapString(plan.path), plans.limitBytes,
                           kj::mv(file), kj::mv(trial), kj::mv(memory.writable)});
  }
  return made.releaseAsArray();
}

}  // namespace troupe
