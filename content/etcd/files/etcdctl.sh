# shellcheck shell=sh
# Sourced: ctl ENDPOINT ARGS… asks etcd as the node that executes, with the identity given in the inputs. Only the
# cluster's own authority is trusted: the root also vouches for agents and for other clusters.
jq -r '.identity.leaf + .identity.chain' "$JOIST_INPUTS" >cert.pem
jq -r .identity.chain "$JOIST_INPUTS" >ca.pem
key=$(jq -r .key "$JOIST_INPUTS")
ctl() {
	endpoint=$1
	shift
	ETCDCTL_API=3 etcdctl --endpoints="$endpoint" --cacert=ca.pem --cert=cert.pem --key="$key" --dial-timeout=5s --command-timeout=15s "$@"
}
# Fields of `member list`: id, status, name, peer URL, client URL, is learner.
members() { ctl "$1" member list -w simple; }
