# shellcheck shell=sh disable=SC2154
# Sourced: kubectl as the node that executes, with the certificate for steps.
eval "$(jq -r '@sh "url=\(.url) key=\(.key) leaf=\(.identity.leaf) chain=\(.identity.chain)"' "$JOIST_INPUTS")"
printf '%s' "$chain" >ca.pem
printf '%s%s' "$leaf" "$chain" >cert.pem
kubectl=$(readlink -f artifacts/kubernetes-control)/bin/kubectl
k() {
	"$kubectl" --kubeconfig=/dev/null --cache-dir="$PWD/cache" --server="$url" --certificate-authority=ca.pem \
		--client-certificate=cert.pem --client-key="$key" "$@"
}
