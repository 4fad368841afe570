# What every actor has: a jail, a C library, its setup, a log, an event loop, RPC, an end.
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/malloc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/event_loop.profile"
include: "sandbox/common/rpc.profile"
include: "sandbox/common/exit.profile"
