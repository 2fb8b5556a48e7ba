#!/bin/sh
# The file of public keys that the node's apiserver reads: those that the node knows, and those that others have seen leave. It is read when
# an apiserver starts, so a running one is restarted if the file changed.
set -eu
# shellcheck source=/dev/null
. ./lib.sh
file=/etc/kubernetes/token-keys.pem
if [ "$JOIST_ACTION" = remove ]; then
	rm -f "$file"
	exit 0
fi
mkdir -p keys
# What other nodes say becomes names of files here: nothing but names.
jq -r '.known[], (.left[] | keys[]) | if test("^[a-z0-9][a-z0-9.-]*[.]pem$") then . else error("not the name of a key: \(.)") end' "$JOIST_INPUTS" | sort -u >names
folder=$(jq -r .folder "$JOIST_INPUTS")
while read -r name; do
	if [ -e "$folder/$name" ]; then
		cp "$folder/$name" "keys/$name"
	else
		jq -r --arg name "$name" '[.left[][$name] | values] | first' "$JOIST_INPUTS" | openssl pkey -pubin >"keys/$name"
	fi
done <names
cat keys/*.pem >wanted
if ! cmp -s wanted "$file"; then
	put 0644 "$file" <wanted
	if systemctl is-active --quiet joist-apiserver; then
		systemctl restart joist-apiserver
		until curl -sf --max-time 20 --cacert /etc/kubernetes/identities/kube-apiserver/ca.pem https://127.0.0.1:6443/readyz >ready; do sleep 1; done
	fi
fi
echo "{\"file\": \"$file\"}" >"$JOIST_OUTPUTS"
