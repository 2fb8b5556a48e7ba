#!/bin/sh
# demo.sh up [kubernetes|etcd]: from nothing to a cluster on virtual machines that boot from the network: one control-plane
# machine (CONTROL=3 for three) and two workers of Kubernetes (make demo), or three members of etcd (make demo-etcd).
# demo.sh down: ends either and takes away all that it made, also after everything was killed (make demo-down).
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
joist=$here/bin/joist
data=${JOIST_DATA:-$here/build/demo}
control=${CONTROL:-1}

if [ "$(id -u)" != 0 ]; then
	echo "the demo needs root: it makes a network namespace and starts virtual machines in it" >&2
	exit 1
fi

usage() {
	echo "usage: demo.sh up [kubernetes|etcd], or demo.sh down; CONTROL is 1, 3 or 5" >&2
	exit 2
}

# lab ARGS…: an engine in a lab of its own, and what a client of it needs.
lab() {
	# What an ended lab left in the demo's own folder speaks of machines that have forgotten everything.
	if [ -z "${JOIST_DATA:-}" ] && ! "$joist" lab exec --data "$data" -- true 2>/dev/null; then
		rm -rf "$data"
	fi
	"$joist" bootset build --out "$here/build/bootsets" --cache "$here/build/bootset-cache" --agent "$here/bin/joist-agent"
	socket=$("$joist" lab up --data "$data" --bootsets "$here/build/bootsets" "$@" -o json | jq -r .socket)
	export JOIST_DATA="$data" JOIST_SOCKET="$socket" PATH="$here/bin:$PATH"
}

etcd() {
	lab --machines 3
	joist apply "${JOIST_CLUSTER:-$here/content/examples/etcd.hcl}"
	# A client outside the machines, with a certificate of its own.
	joist cert --cluster demo --dir "$data/client" >/dev/null
	ctl="joist lab exec -- etcdctl --endpoints https://etcd.demo.lab:2379 --cacert $data/client/ca.pem --cert $data/client/cert.pem --key $data/client/key.pem"
	export ETCDCTL_API=3
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
}

gib() { echo $(($1 * 1024 * 1024 * 1024)); }

kubernetes() {
	artifacts=${JOIST_ARTIFACTS:-$here/build/artifacts/current}
	if [ ! -e "$artifacts/manifest.json" ]; then
		echo "there is nothing yet to make Kubernetes of; building it takes some minutes the first time"
		(cd "$here" && go run ./tests/artifacts/build)
	fi
	lab
	joist mirror add --manifest "$artifacts/manifest.json" >/dev/null
	# No more virtual processors than there are real ones, as far as that goes: those that wait for each other waste the rest.
	i=1 cpus=$(($(nproc) / (control + 2)))
	[ "$cpus" -ge 1 ] || cpus=1
	control_names='' worker_names=''
	while [ "$i" -le "$((control + 2))" ]; do
		memory=2 list=worker_names
		[ "$i" -gt "$control" ] || { memory=3 list=control_names; }
		eval "$list=\"\${$list:+\$$list, }\\\"n$i\\\"\""
		joist lab machine add "n$i" --cpus "$cpus" --memory "$(gib "$memory")" --disk "$(gib 6)" >/dev/null
		i=$((i + 1))
	done
	# Exactly these machines: which of them is which should not depend on who booted first.
	sed -e "s/^ *control = .*/    control = [$control_names]/" -e "s/^ *worker  *= .*/    worker = [$worker_names]/" \
		"${JOIST_CLUSTER:-$here/content/examples/kubernetes.hcl}" >"$data/demo.hcl"
	joist fmt "$data/demo.hcl" >/dev/null 2>&1 || true
	joist apply "$data/demo.hcl"

	# A client outside the machines: the key is made here, its certificate lives a few hours.
	joist kubeconfig demo --file "$data/kubeconfig" >/dev/null
	bundle=$artifacts/bin/kubectl
	k="joist lab exec -- $bundle --kubeconfig $data/kubeconfig"
	printf '\nthe cluster, as a client outside of the machines sees it:\n'
	$k get nodes,pods -A -o wide | sed 's/^/  /'
	printf '\na pod behind a Service:\n'
	$k apply -f "$here/tests/demo/hello.yaml" | sed 's/^/  /'
	$k rollout status deployment/hello --timeout=180s | sed 's/^/  /'
	address=$($k get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
	n=0
	until joist lab exec -- curl -sf --max-time 5 "http://$address:30080/" >"$data/answer"; do
		n=$((n + 1))
		[ "$n" -lt 30 ] || { echo "the Service does not answer" >&2; exit 1; }
		sleep 1
	done
	sed 's/^/  /' "$data/answer"
	printf '\nwhere the time went:\n'
	joist path demo | sed 's/^/  /'
	cat <<END

try it (make demo-down ends it):
  export PATH=$here/bin:\$PATH JOIST_DATA=$data JOIST_SOCKET=$socket
  $k get pods -A
  joist lab exec -- curl http://$address:30080/
  joist plan --cluster demo
  joist force demo/smoke --wait
  joist why 'demo/kubelet[n$((control + 1))]'
  joist node console n1
END
}

case ${1:-} in
up)
	case $control in 1 | 3 | 5) ;; *) usage ;; esac
	case ${2:-kubernetes} in
	kubernetes) kubernetes ;;
	etcd) etcd ;;
	*) usage ;;
	esac
	;;
down)
	"$joist" lab down --data "$data"
	# The demo's own folder goes; one that was named from outside stays.
	[ -n "${JOIST_DATA:-}" ] || rm -rf "$data"
	;;
*) usage ;;
esac
