#!/bin/sh
# Nothing but the model (instance.cc) starts VMs: of all that `troupe` is linked from nothing else
# depends on LocalVm, and of the model only that file makes one.
set -eu
sort "$1" >"$TEST_TMPDIR/found"
printf '%s\n' //vmm/serve:environment //vmm:local_vm | sort >"$TEST_TMPDIR/expected"
diff "$TEST_TMPDIR/expected" "$TEST_TMPDIR/found"
shift
[ "$(grep -l LocalVm "$@")" = vmm/serve/instance.cc ]
