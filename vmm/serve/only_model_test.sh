#!/bin/sh
# Nothing but the model (instance.cc) starts VMs: of all that `troupe` is linked from nothing else
# depends on LocalVm, and of the model only that file makes one. The compiler sees to it as well: a
# LocalVm wants a Starter, which only an Instance can make, and an Instance a Maker, which only an
# Environment can. So `troupe run` and every client of `troupe serve` come by the same way.
set -eu
sort "$1" >"$TEST_TMPDIR/found"
printf '%s\n' //vmm/serve:environment //vmm/vm:local_vm | sort >"$TEST_TMPDIR/expected"
diff "$TEST_TMPDIR/expected" "$TEST_TMPDIR/found"
shift
[ "$(grep -l LocalVm "$@")" = vmm/serve/instance.cc ]
