#!/bin/sh
set -eu
systemctl disable --now joist-etcd 2>/dev/null || [ ! -e /etc/systemd/system/joist-etcd.service ]
rm -rf /etc/systemd/system/joist-etcd.service /etc/joist-etcd /var/lib/etcd/data
systemctl daemon-reload
