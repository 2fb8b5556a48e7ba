#!/bin/sh
# shellcheck disable=SC2154 # jq assigns what is read from the inputs
# The configuration that containerd reads for each pod, and one nftables table for what leaves the pods' network.
set -eu
eval "$(jq -r '@sh "network=\(.network) cluster=\(.cluster)"' "$JOIST_INPUTS")"
file=/etc/cni/net.d/10-joist.conflist
case $JOIST_ACTION in
apply)
	mkdir -p "${file%/*}"
	cat >config <<END
{
  "cniVersion": "1.0.0",
  "name": "joist",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipMasq": false,
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "$network" }]], "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "/run/cni/networks" }
    }
  ]
}
END
	cmp -s config "$file" || mv config "$file"
	nft -f - <<END
table ip joist-pods
delete table ip joist-pods
table ip joist-pods {
	chain leaving {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr $cluster ip daddr != $cluster masquerade
	}
}
END
	;;
verify)
	grep -qF "\"$network\"" "$file" || { echo "$file is missing or has another network" >&2; exit 1; }
	nft list table ip joist-pods | grep -qF "saddr $cluster" || { echo "the table joist-pods is not there" >&2; exit 1; }
	;;
remove)
	rm -f "$file"
	nft delete table ip joist-pods 2>/dev/null || true
	;;
esac
