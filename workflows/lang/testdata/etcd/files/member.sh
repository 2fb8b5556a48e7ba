#!/bin/sh
# files/member.sh
set -eu
