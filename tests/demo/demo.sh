#!/bin/sh
# demo.sh up: from nothing to an etcd cluster on three virtual machines that boot from the network (make demo).
# demo.sh down: ends it and takes away all that it made, also after everything was killed (make demo-down).
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
joist=$here/bin/joist
data=${JOIST_DATA:-$here/build/demo}
cluster=${JOIST_CLUSTER:-$here/content/examples/etcd.hcl}

if [ "$(id -u)" != 0 ]; then
	echo "the demo needs root: it makes a network namespace and starts virtual machines in it" >&2
	exit 1
fi
case ${1:-} in
up) ;;
down)
	"$joist" lab down --data "$data"
	# The demo's own folder goes; one that was named from outside stays.
	[ -n "${JOIST_DATA:-}" ] || rm -rf "$data"
	exit 0
	;;
*)
	echo "usage: demo.sh up|down" >&2
	exit 2
	;;
esac

# What an ended lab left in the demo's own folder speaks of machines that have forgotten everything.
if [ -z "${JOIST_DATA:-}" ] && ! "$joist" lab exec --data "$data" -- true 2>/dev/null; then
	rm -rf "$data"
fi
"$joist" bootset build --out "$here/build/bootsets" --cache "$here/build/bootset-cache" --agent "$here/bin/joist-agent"
socket=$("$joist" lab up --data "$data" --bootsets "$here/build/bootsets" --machines 3 -o json | jq -r .socket)
export JOIST_DATA="$data" JOIST_SOCKET="$socket"
"$joist" apply "$cluster"

# A client outside the machines, with a certificate of its own.
"$joist" cert --cluster demo --dir "$data/client" >/dev/null
ctl="joist lab exec -- etcdctl --endpoints https://etcd.demo.lab:2379 --cacert $data/client/ca.pem --cert $data/client/cert.pem --key $data/client/key.pem"
export PATH="$here/bin:$PATH" ETCDCTL_API=3
printf '\nthe members, as a client outside of the machines sees them:\n'
$ctl endpoint health --cluster 2>&1 | sed 's/^/  /'
cat <<END

try it (make demo-down ends it):
  export PATH=$here/bin:\$PATH ETCDCTL_API=3 JOIST_DATA=$data JOIST_SOCKET=$socket
  $ctl put greeting hello
  $ctl get greeting
  joist lab exec -- dig +noall +answer n1.demo.lab etcd.demo.lab
  joist why 'demo/member[n1]'
  joist node console n1
END
