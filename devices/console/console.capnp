@0xe8d3a1b6f5279c04;

# What the actors `console` and `serial` are told at their start (Setup.config).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct ConsolePort {
  enum Backend {
    stdio @0;
    # The fds "in" and "out".
    pty @1;
    # A "pty": the master of a pseudo-terminal that was made raw.
    file @2;
    # An "out", opened for appending; there is no input.
    socket @3;
    # A "listen": a listening unix stream socket.
  }
  backend @0 :Backend;
  fdIndex @1 :UInt16;
  # Which of the fds of that name; of "in" there is one.

  columns @2 :UInt16;
  rows @3 :UInt16;
  # Size of the terminal in character cells; 0 where it is not known. The serial port has no way to
  # tell the guest.
  followsTerminal @4 :Bool;
  # That is the user's terminal: the broker tells when it changes.

  plain @5 :Bool;
  # A port of bytes, not a console.
  name @6 :Text;
  # At most 64 bytes; "" has none.
  replay @7 :Bool = true;
  # With a socket: who connects late is given the last MiB of what the guest said. Otherwise the
  # guest is told when somebody is connected.
}

struct ConsoleConfig {
  ports @0 :List(ConsolePort);
  # One to eight; the serial port has one.
}
