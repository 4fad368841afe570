@0x8f5e13bd0c9a7462;

using Cxx = import "/capnp/c++.capnp";
using Handle = import "../../protos/handle.capnp".Handle;
$Cxx.namespace("troupe::sandbox::testing");

# What the sample actor does on demand, so that tests can look at it and try its jail.

struct SampleConfig {
  greeting @0 :Text;
}

interface Sample {
  hello @0 () -> (name :Text, greeting :Text);

  place @1 (index :UInt32, handle :Handle);
  # Puts the fd of `handle` at the number of "events".

  enter @2 (stage :Text);

  read @3 () -> (text :Text);
  # Reads the file "disk" from its beginning.

  try @4 (call :Text) -> (result :Int64);
  # Makes one system call that a jail should refuse, chosen by name; the result as the kernel gave it.

  startThread @5 (stage :Text = "thread:worker", call :Text) -> ();
  # Starts a thread and answers when it has taken the filter `stage`, unless that is empty. The thread
  # then makes the system call `call` (see `try`), unless that is empty, and waits on the eventfd
  # "events".
}
