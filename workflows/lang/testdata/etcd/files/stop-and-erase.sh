#!/bin/sh
# files/stop-and-erase.sh
set -eu
