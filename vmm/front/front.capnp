@0x8c5f1e7ab2d90346;

# Between `troupe` and the front end of one VM's control socket. The front end's end of the pipe
# exports a `FrontEnd` as its bootstrap capability.

using Cxx = import "/capnp/c++.capnp";
using Handle = import "../../protos/handle.capnp".Handle;
using Control = import "../../protos/control.capnp";
$Cxx.namespace("troupe");

interface FrontEnd {
  ready @0 () -> ();
  # Returns once the process has narrowed itself to its serving filter; comes before everything else.

  serve @1 (connection :Handle, vm :Control.Vm) -> ();
  # `connection`: a connected stream socket whose other end an outside client holds. `troupe` has
  # accepted it and checked who it is, and has read nothing from it. The front end serves `vm` on it,
  # within bounds, and returns when the client has gone.

  serveMetrics @2 (connection :Handle, vm :Control.Vm) -> ();
  # The same for a client of the metrics' socket, who may be anybody that socket lets in: answers one
  # HTTP request with what `vm` says of its load.
}
