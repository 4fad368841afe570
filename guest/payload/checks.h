#pragma once

#include "guest/payload/command_line.h"
#include "guest/payload/start_info.h"
#include "guest/payload/virtio_device.h"

// The self-test of each kind of device: prints its rows (report.h). `number` counts the devices of
// the kind. Each leaves its device running.
namespace payload {

void checkDisk(const DriverContext& context, const PciFunction& function, unsigned number,
               bool mayScratch);
void checkNet(const DriverContext& context, const PciFunction& function, unsigned number);
// Leaves 16 MiB in the balloon.
void checkBalloon(const DriverContext& context, const PciFunction& function, unsigned number);
void checkRng(const DriverContext& context, const PciFunction& function, unsigned number);
void checkVsock(const DriverContext& context, const PciFunction& function, unsigned number);

// A console of several ports: what it says of them, and a line on each. Says nothing of one that
// offers none, and leaves the device to checkConsole().
void checkPorts(const DriverContext& context, const PciFunction& function, unsigned number);

// A console as one port. Also answers every byte received with the same byte until 'q', when
// `echo`.
void checkConsole(const DriverContext& context, const PciFunction& function, unsigned number,
                  bool echo);

// Memory at `address` that is no RAM: what text the host has put there, a count that goes up each
// time, and an answer. Then that no disk reads into it.
void checkWindow(const StartInfo& info, uint64_t address);
void checkNoDiskReaches(const DriverContext& context, const PciFunction& function, unsigned number,
                        uint64_t address);

}  // namespace payload
