#include "vmm/company/console_start.h"

#include <unistd.h>

#include "vmm/cli/terminal.h"

namespace troupe {

namespace {

using sandbox::HandedFd;

// How many fds of each name were handed over: the next one's index.
struct Counts {
  uint16_t out = 0;
  uint16_t pty = 0;
  uint16_t listen = 0;
};

void describeBackend(const EndpointFiles& files, Counts& counts, ConsolePort::Builder port,
                     kj::Vector<HandedFd>& fds) {
  auto hand = [&](kj::StringPtr name, uint16_t& index, int fd) {
    port.setFdIndex(index);
    fds.add(HandedFd{name, index++, fd});
  };
  switch (files.kind) {
    case Endpoint::Kind::STDIO:
      port.setBackend(ConsolePort::Backend::STDIO);
      fds.add(HandedFd{"in", 0, STDIN_FILENO});
      hand("out", counts.out, STDOUT_FILENO);
      return;
    case Endpoint::Kind::PTY:
      port.setBackend(ConsolePort::Backend::PTY);
      hand("pty", counts.pty, files.file);
      return;
    case Endpoint::Kind::FILE:
      port.setBackend(ConsolePort::Backend::FILE);
      hand("out", counts.out, files.file);
      return;
    case Endpoint::Kind::SOCKET:
      port.setBackend(ConsolePort::Backend::SOCKET);
      KJ_IF_MAYBE (socket, files.socket) {
        hand("listen", counts.listen, (*socket)->fd());
      }
      return;
  }
}

void describeSize(const ConsolePlan& plan, ConsolePort::Builder port) {
  if (plan.size == ConsolePlan::Size::NONE) return;
  port.setColumns(plan.columns);
  port.setRows(plan.rows);
  if (plan.size == ConsolePlan::Size::SAID) return;
  port.setFollowsTerminal(true);
  KJ_IF_MAYBE (size, terminalSize()) {
    port.setColumns(size->columns);
    port.setRows(size->rows);
  }
}

}  // namespace

void describeConsoles(kj::ArrayPtr<const ConsolePlan> plans,
                      kj::ArrayPtr<const EndpointFiles> files, ConsoleConfig::Builder config,
                      kj::Vector<HandedFd>& fds) {
  auto ports = config.initPorts(plans.size());
  Counts counts;
  for (uint i = 0; i < plans.size(); i++) {
    describeBackend(files[i], counts, ports[i], fds);
    describeSize(plans[i], ports[i]);
    ports[i].setPlain(plans[i].plain);
    ports[i].setName(plans[i].name);
    ports[i].setReplay(plans[i].replay);
  }
}

void describeSerial(const EndpointFiles& files, ConsoleConfig::Builder config,
                    kj::Vector<HandedFd>& fds) {
  Counts counts;
  describeBackend(files, counts, config.initPorts(1)[0], fds);
}

}  // namespace troupe
