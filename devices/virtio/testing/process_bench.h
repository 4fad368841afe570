#pragma once

#include <kj/async-io.h>
#include <kj/io.h>

#include "devices/virtio/testing/fake_broker.h"
#include "sandbox/attest.h"
#include "sandbox/launcher.h"

namespace troupe::virtio::testing {

// An fd that a device's profile has beside rpc and log.
using sandbox::HandedFd;

// A device process in its jail, as `troupe` starts it. Attestation and killing included.
class JailedProcess {
 public:
  KJ_DISALLOW_COPY(JailedProcess);

  kj::AsyncIoContext io = kj::setupAsyncIo();
  sandbox::Child& child() { return *process; }
  // What `troupe` would find before it lets the guest run. Empty: all is as the profile says.
  kj::Array<kj::String> attest(sandbox::Stage stage,
                               kj::Maybe<const sandbox::SharedFile&> memory = nullptr);
  // The wait status; fails when the process is still there after ten seconds.
  int waitForExit();

 protected:
  JailedProcess(const sandbox::Profile& profile, kj::StringPtr program,
                kj::ArrayPtr<const HandedFd> fds, kj::Maybe<capnp::AnyPointer::Reader> config,
                kj::StringPtr executable);
  ~JailedProcess() noexcept(false);
  kj::Own<kj::AsyncCapabilityStream> brokerEnd;

 private:
  const sandbox::Profile& profile;
  sandbox::Launcher launcher{io.unixEventPort, sandbox::Jail::ON};
  kj::AutoCloseFd logPipe;  // shown at the end: a device that is well says little
  kj::Own<sandbox::Child> process;
};

// One device in its jail, with this test as broker and driver (see FakeBroker). The test has
// `executable` among its data.
class ProcessBench: public JailedProcess, public FakeBroker {
 public:
  // `program` is the name the executable is started under: "troupe-rng".
  ProcessBench(FakeRam& ram, const sandbox::Profile& profile, kj::StringPtr program,
               size_t queueCount, kj::ArrayPtr<const HandedFd> fds = nullptr,
               kj::Maybe<capnp::AnyPointer::Reader> config = nullptr,
               kj::StringPtr executable = "devices/troupe-devices");
};

}  // namespace troupe::virtio::testing
