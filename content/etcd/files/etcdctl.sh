# shellcheck shell=sh
# Sourced: ctl ENDPOINT ARGS… asks etcd as the node that executes. It uses $key and cert.pem, leaf and chain. Only the
# cluster's own authority is trusted: the root also vouches for agents and for other clusters.
: "${key:?}"
awk '/^-----BEGIN/ { n++ } n > 1' cert.pem >ca.pem
ctl() {
	endpoint=$1
	shift
	ETCDCTL_API=3 etcdctl --endpoints="$endpoint" --cacert=ca.pem --cert=cert.pem --key="$key" --dial-timeout=5s --command-timeout=15s "$@"
}
# Fields of `member list`: id, status, name, peer URL, client URL, is learner.
members() { ctl "$1" member list -w simple; }
