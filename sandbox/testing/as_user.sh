#!/bin/bash
# Runs a test as an ordinary user who owns nothing. usage: as_user.sh TEST
set -eu
if [ "$(id -u)" != 0 ]; then
  exec "$1"
fi
# What was built may lie below a home that nobody else may enter; a copy of it does not.
copy=$(mktemp -d /tmp/troupe-as-user.XXXXXX)
trap 'rm -rf "$copy"' EXIT
cp -rL . "$copy/tree"
chmod -R a+rX "$copy"
cd "$copy/tree"
# Without the files that bazel wants a test to write, which are not for this user.
setpriv --reuid 65533 --regid 65533 --clear-groups env -i PATH="$PATH" "$1"
