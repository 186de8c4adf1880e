#!/usr/bin/env bash
# A Docker image of Debian with a real systemd, a Docker Engine of its own and what a kubelet needs, for the tests of
# units, reboots and whole nodes.
#
#   scripts/systemd-image.sh [TAG]        default: kubeboot-test/systemd:2
#
# Made with debootstrap from the machine's own apt mirror, once; its archive is kept in $KUBEBOOT_CACHE. The kubelet,
# kubeadm and kubectl are no part of it: the tests mount them.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
tag=${1:-kubeboot-test/systemd:2}
docker_up
docker image inspect "$tag" >/dev/null 2>&1 && exit 0

archive=$KUBEBOOT_CACHE/systemd-2.tar
if [ ! -f "$archive" ]; then
  need_packages debootstrap
  . /etc/os-release
  mirror=$(debian_mirror)
  say "making a Debian with systemd (debootstrap, a minute or two)"
  tree=$(mktemp -d "$KUBEBOOT_CACHE/systemd.XXXXXX")
  trap 'rm -rf "$tree"' EXIT
  packages=systemd,systemd-sysv,dbus,docker.io,iptables,procps,iproute2,ca-certificates
  # What kubeadm and a kubelet look for, and the network of pods.
  packages+=,containerd,containernetworking-plugins,conntrack,ethtool,ebtables,socat,kmod,curl,openssl
  debootstrap --variant=minbase --include="$packages" \
    "${VERSION_CODENAME:-bookworm}" "$tree" "$mirror" >"$KUBEBOOT_CACHE/systemd.log" 2>&1 ||
    die "debootstrap failed: $(tail -n 3 "$KUBEBOOT_CACHE/systemd.log")"
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
  # Consoles and mounts that a container does not have.
  for unit in getty.target systemd-firstboot.service systemd-resolved.service systemd-udevd.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
  done
  cp -a "$(dirname "$0")/node/." "$tree/"
  tar -C "$tree" -cf "$archive.part" .
  mv "$archive.part" "$archive"
fi
docker import --change 'CMD ["/sbin/init"]' "$archive" "$tag" >/dev/null
say "image $tag"
