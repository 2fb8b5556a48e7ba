#!/bin/sh
set -eu
case $JOIST_ACTION in
apply)
	folder=$(readlink -f artifacts/etcd)/bin
	"$folder/etcd" --version
	echo "{\"folder\": \"$folder\"}" >"$JOIST_OUTPUTS"
	;;
verify) artifacts/etcd/bin/etcd --version ;;
remove) ;; # the bundle goes with its last user
esac
