#!/bin/sh
# Installs the Debian packages that are needed and missing: packages.sh demo | test | bench (the peers of make bench).
# Services that packages bring (etcd, PostgreSQL) are not started: the demo and the tests run their own.
set -eu

demo="qemu-system-x86 qemu-utils ipxe ipxe-qemu ovmf seabios debootstrap squashfs-tools iproute2 nftables
  kmod cpio zstd xz-utils openssl ca-certificates curl jq etcd-client bind9-dnsutils"
test="$demo gcc libc6-dev shellcheck bind9-host knot-dnsutils etcd-server isc-dhcp-client dnsmasq-base busybox
  atftp tftp-hpa postgresql socat procps util-linux runc crun"
bench="$demo ansible-core atftp dnsmasq-base dnsperf kea-admin kea-dhcp4-server nginx-light tftpd-hpa"

case "${1:-}" in
demo) wanted=$demo ;;
test) wanted=$test ;;
bench) wanted=$bench ;;
*)
  echo "usage: packages.sh demo|test|bench" >&2
  exit 2
  ;;
esac

if ! command -v dpkg-query >/dev/null; then
  echo "joist is demonstrated and tested on Debian 12; this machine has no dpkg. Install the counterparts of:" >&2
  echo "$wanted" >&2
  exit 1
fi

missing=
for p in $wanted; do
  # shellcheck disable=SC2016 # dpkg-query's own variable
  case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)" in
  *" installed") ;;
  *) missing="$missing $p" ;;
  esac
done

# Boot sets are built from packages that apt downloads, for which it needs its lists.
lists=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' 2>/dev/null | head -n 1)
if [ -z "$missing" ] && [ -n "$lists" ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "these Debian packages are missing, and only root can install them:${missing:- none, but apt-get update was never run}" >&2
  exit 1
fi

apt-get -q update
[ -n "$missing" ] || exit 0
echo "installing:$missing"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 1' INT TERM HUP
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing
