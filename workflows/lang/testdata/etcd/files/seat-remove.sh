#!/bin/sh
# files/seat-remove.sh
set -eu
