#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine to a running Kubernetes control plane:
#
#   sudo ./scripts/quickstart.sh [--help] [KUBEADM-STYLE INIT FLAGS ...]
#
# Installs what is missing, builds kubeboot, finds the component images (already there, else pulled, else built from
# Debian's source package) and runs `kubeboot init`. Running it again is safe and quick.
# KUBERNETES_VERSION=v1.36.2 chooses a version.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

case ${1:-} in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ "$(id -u)" -eq 0 ] || die "a control plane needs root: sudo $0 $*"

started=$SECONDS
rust_up
docker_up
kubectl_up

say "building kubeboot"
cargo build --release --locked --quiet
bin=${CARGO_TARGET_DIR:-$PWD/target}/release/kubeboot

# Which version: what is asked for, else what is there, else what can be pulled, else what can be built.
buildable=v1.20.2
have() { "$bin" images list --missing "$@" >/dev/null 2>&1; }
flags=()
if [ -n "${KUBERNETES_VERSION:-}" ]; then
  flags=(--kubernetes-version "$KUBERNETES_VERSION")
elif ! have; then
  if have --kubernetes-version "$buildable"; then
    flags=(--kubernetes-version "$buildable")
  else
    say "pulling the component images"
    if ! "$bin" images pull; then
      say "no registry answers: building Kubernetes $buildable from Debian's source package"
      images_built "$bin" "$buildable"
      flags=(--kubernetes-version "$buildable")
    fi
  fi
fi

say "kubeboot init ${flags[*]} $*"
"$bin" init "${flags[@]}" "$@"

export KUBECONFIG=/etc/kubernetes/admin.conf
show() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }
show kubectl get --raw='/readyz?verbose'
show kubectl get ns
show kubectl get pods -A
show docker ps --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}'
show "$bin" status
cat <<TEXT

The control plane is up after $((SECONDS - started)) s. To use it:   export KUBECONFIG=/etc/kubernetes/admin.conf
To take it away again, whole:            $bin reset
TEXT
