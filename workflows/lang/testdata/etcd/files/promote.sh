#!/bin/sh
# files/promote.sh
set -eu
