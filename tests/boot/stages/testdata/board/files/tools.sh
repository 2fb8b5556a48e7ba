#!/bin/sh
# The machine itself is there, with the tools of the node image.
set -eu
test -d /only-in-scout
test -e /sys/class/net
test -c /dev/null
lsblk >/dev/null
