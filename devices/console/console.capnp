@0xe8d3a1b6f5279c04;

# What the actors `console` and `serial` are told at their start (Setup.config).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct ConsoleConfig {
  enum Backend {
    stdio @0;
    # The fds "in" and "out".
    pty @1;
    # The fd "pty": the master of a pseudo-terminal that was made raw.
    file @2;
    # The fd "out", opened for appending; there is no input.
    socket @3;
    # The fd "listen": a listening unix stream socket.
  }
  backend @0 :Backend;

  columns @1 :UInt16;
  rows @2 :UInt16;
  # Size of the terminal in character cells; 0 where it is not known. The serial port has no way to
  # tell the guest.
}
