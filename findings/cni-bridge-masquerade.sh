#!/usr/bin/env bash
# The bridge plugin of containernetworking-plugins 1.1.1 (Debian 12), called as containerd and podman call it:
#
#   DEL answers with success where the interface is gone already, gives the pod's address back to host-local, and leaves
#   the chain and the rule that ipMasq made for it in the packet filter. It does so although DEL is handed the result of
#   ADD (prevResult), in which the address stands. Nothing takes them away later: another DEL finds no interface either,
#   and CHECK is not asked for what is gone. So whoever ends a DEL half way (a client of containerd that goes away
#   meanwhile is enough: containerd ends the plugin with the call) leaves a rule for an address that the next pod gets.
#
# Needs Linux, root, apt and iptables. Works in a directory and in namespaces of its own, prints what it sees, and fails if
# that changes. Seen on Debian 12 with iptables 1.8.9 (nf_tables), 2026-11-30. Source: plugins/main/bridge/bridge.go of
# v1.1.1 (cmdDel takes the addresses from the deleted interface alone) and pkg/ip/ipmasq_linux.go;
# https://www.cni.dev/docs/spec/ (DEL: prevResult; a plugin should clean up what it can where parts are missing).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download -qq 'containernetworking-plugins=1.1.1+ds1-3*' >/dev/null 2>&1 && dpkg -x ./*.deb .)
bin=$work/usr/lib/cni

seen() {
  ip link set lo up
  ip netns add pod
  local config result
  config=$(printf '{"cniVersion": "0.4.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
    "ipam": {"type": "host-local", "dataDir": "%s/ipam", "ranges": [[{"subnet": "10.9.8.0/24"}]]}' "$work")
  call() { # COMMAND CONFIG
    CNI_COMMAND=$1 CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=$bin "$bin/bridge" <<<"$2"
  }
  left() { iptables -t nat -S | grep -c 'id: .*pod' || true; }
  result=$(call ADD "$config}")
  echo "after ADD: $(left) rules"
  if [ "$1" = gone ]; then ip -n pod link del eth0; fi
  local code=0
  call DEL "$config, \"prevResult\": $result}" || code=$?
  echo "DEL: exit code $code, $(left) rules, $(find "$work/ipam/net" -name '10.9.8.*' | wc -l) addresses in use"
  code=0
  call DEL "$config, \"prevResult\": $result}" || code=$?
  echo "DEL again: exit code $code, $(left) rules"
}

apart() { # there|gone
  rm -rf "$work/ipam"
  unshare --net --mount bash -euo pipefail -c "$(declare -f seen); work=$work bin=$bin
    mount -t tmpfs none /run; seen $1"
}

expect() { # HOW OUTPUT
  local now
  now=$(apart "$1")
  printf 'interface %s at DEL\n%s\n' "$1" "$now"
  [ "$now" = "$2" ] || { printf 'changed; it was\n%s\n' "$2" >&2; exit 1; }
}

expect there 'after ADD: 3 rules
DEL: exit code 0, 0 rules, 0 addresses in use
DEL again: exit code 0, 0 rules'
expect gone 'after ADD: 3 rules
DEL: exit code 0, 3 rules, 0 addresses in use
DEL again: exit code 0, 3 rules'
