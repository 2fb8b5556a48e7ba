#!/bin/sh
# files/healthy.sh
set -eu
