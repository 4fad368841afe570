#!/bin/bash
# Runs a test as an ordinary user who owns nothing. usage: as_user.sh TEST
set -eu
if [ "$(id -u)" != 0 ]; then
  exec "$1"
fi
# Without the files that bazel wants a test to write, which are not for this user.
exec setpriv --reuid 65533 --regid 65533 --clear-groups env -i PATH="$PATH" "$1"
