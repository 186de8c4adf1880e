#!/usr/bin/env bash
# Measures kubeboot against the floor on this machine, in one run:
#
#   sudo ./scripts/bench.sh [--rounds N] [--only-load]       default: 3 rounds
#
# The floor is the same four processes started directly, with the arguments of the rendered manifests. Compare ratios:
# absolute times differ from machine to machine. Brings a control plane up and takes it away; needs a machine without one.
# The last part runs 4 and 100 static pods on one agent; --only-load runs nothing else, and needs no control plane.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
case ${1:-} in -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ "$(id -u)" -eq 0 ] || die "a control plane needs root: sudo $0 $*"
rust_up
docker_up
need_packages python3 python3-yaml=/usr/lib/python3/dist-packages/yaml busybox-static=/bin/busybox
cargo build --release --locked --quiet
bin=${CARGO_TARGET_DIR:-$PWD/target}/release/kubeboot
if [[ " $* " != *" --only-load "* ]]; then
  ./scripts/components.sh v1.20.2 v1.20.3
  for version in v1.20.2 v1.20.3; do images_built "$bin" "$version"; done
fi
# Not whatever python3 is first on the PATH: the one that Debian's package serves.
exec /usr/bin/python3 scripts/bench.py --bin "$bin" --components "$KUBEBOOT_CACHE/components/v1.20.2" "$@"
