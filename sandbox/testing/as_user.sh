#!/bin/bash
# Runs a test as an ordinary user who owns nothing. usage: as_user.sh TEST
set -eu
if [ "$(id -u)" != 0 ]; then
  exec "$1"
fi
# One that has no processes of its own, so that limits on processes are its own too.
exec setpriv --reuid 65533 --regid 65533 --clear-groups env -u XML_OUTPUT_FILE "$1"
