#!/bin/sh
# files/seat-add.sh
set -eu
