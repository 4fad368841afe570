# The layers of every jail besides fds, filters and limits, each as close as a kernel allows. A profile
# that needs another says so itself.
minimum_kernel: "6.1"
namespaces { kind: [ USER, PID, NET, MOUNT, IPC, UTS, CGROUP ] }
root: EMPTY

landlock { deny: FILES }
landlock { deny: TRUNCATE optional: "since 6.2" }
landlock { deny: TCP optional: "since 6.7" }
landlock { deny: DEVICE_IOCTLS optional: "since 6.10" }
landlock { deny: [ ABSTRACT_SOCKETS, SIGNALS ] optional: "since 6.12" }

mdwe { optional: "since 6.3" }
executable_seals { optional: "since 6.3" }

memory { access: NONE }
restart { policy: NEVER }
