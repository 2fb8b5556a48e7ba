#!/bin/sh
# Says whether a member votes. It is asked itself, for while a cluster is founded nobody stands behind the front yet. Of one that
# does not answer the others say whether they count on it: its process is another step's.
set -eu
# shellcheck disable=SC2034 # key is for etcdctl.sh
{
	read -r url
	read -r key
	read -r front
	cat >cert.pem
} <<EOT
$(jq -r '.client_url, .key, .endpoint, .identity.leaf + .identity.chain' "$JOIST_INPUTS")
EOT
# shellcheck source=/dev/null
. ./etcdctl.sh
learner() { echo "$url is a learner: it has no vote" >&2; exit 1; }
tries=0
while status=$(ctl "$url" endpoint status -w json); do
	if [ "$(echo "$status" | jq '.[0].Status.isLearner // false')" = false ]; then
		echo "$url votes"
		exit 0
	fi
	# Who was promoted hears of it after those who decided that.
	tries=$((tries + 1))
	[ "$tries" -lt 10 ] || learner
	sleep 1
done
members "$front" >list || { echo "neither $url nor $front says whether it votes" >&2; exit 1; }
case $(awk -F', ' -v url="$url" '$5 == url { print $6 }' list) in
false) echo "$url votes, and does not answer now" ;;
true) learner ;;
*) echo "$url is no member any more" >&2; exit 1 ;;
esac
