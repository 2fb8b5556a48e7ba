#!/bin/sh
# Puts Debian's cloud kernel into DIR/vmlinuz, without installing it: tests of firmware boot it. kernel.sh DIR
set -eu

dir=${1:?usage: kernel.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
[ ! -s "$dir/vmlinuz" ] || exit 0

package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
if [ -z "$package" ]; then
  echo "apt does not know linux-image-cloud-amd64: run apt-get update on Debian 12" >&2
  exit 1
fi
work=$(mktemp -d "$dir/.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 777 "$work" # apt downloads as a user of its own
(cd "$work" && apt-get -q download "$package" && dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './boot/vmlinuz-*')
mv "$work"/boot/vmlinuz-* "$dir/vmlinuz"
