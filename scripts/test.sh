#!/usr/bin/env bash
# Runs every test, and installs what that needs:
#
#   sudo ./scripts/test.sh [--quick]
#
#   --quick   format, lints, unit and golden tests only: no root, no Docker, no control plane
#
# The end-to-end tests bring up a real control plane on this machine (ports 6443, 2379, 10257, 10259; /etc/kubernetes and
# so on) and take it away again; they refuse a machine that has one already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
case ${1:-} in -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

started=$SECONDS
step() { say "[$((SECONDS - started)) s] $*"; }

rust_up
# A clean clone shares its compiled dependencies with the one before.
[ -d target ] || export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$KUBEBOOT_CACHE/target}
target=${CARGO_TARGET_DIR:-$PWD/target}

step "format, lints, one TLS provider"
cargo fmt --check
cargo clippy --quiet --locked --all-targets --features testing -- -D warnings
for crate in ring openssl-sys native-tls; do
  if cargo tree --locked --quiet -i "$crate" 2>/dev/null | grep -q .; then die "$crate is linked: one TLS provider only"; fi
done
bash -n scripts/*.sh

# Linking the release build takes one processor for minutes, which the tests of this step leave free.
if [ "${1:-}" != --quick ]; then
  cargo build --release --locked --quiet &
  release=$!
  trap 'kill "$release" 2>/dev/null || true' EXIT
fi

step "unit, golden and command-line tests"
cargo test --quiet --locked --features testing --lib --bins --test architecture --test cli --test cli_etcd --test cli_upgrade \
  --test kubeadm_cli --test pki --test repository
[ "${1:-}" != --quick ] || { step "quick tests passed"; exit 0; }

[ "$(id -u)" -eq 0 ] || die "the rest needs root (a real control plane is made): sudo $0, or $0 --quick"
step "component binaries and images"
docker_up
kubectl_up
need_packages busybox-static=/bin/busybox openssl
./scripts/components.sh --node v1.20.2
./scripts/components.sh v1.20.3
wait "$release" || die "the release build failed"
trap - EXIT
export KUBEBOOT_BIN=$target/release/kubeboot
for version in v1.20.2 v1.20.3; do images_built "$KUBEBOOT_BIN" "$version"; done

step "etcd's client on real members"
cargo test --quiet --locked --features testing --test etcd

step "container runtime and agent on real Docker"
cargo test --quiet --locked --features testing --test '*_docker' -- --test-threads=2

step "conformance on real Docker"
cargo test --quiet --locked --features testing --test conformance

step "runtime and agent on podman, by its Docker-compatible socket"
if command -v podman >/dev/null || [ -n "${CI:-}" ] || (need_packages podman); then
  podman_up "$(mktemp -d)"
  trap podman_down EXIT
  DOCKER_HOST=unix://$PODMAN_SOCKET cargo test --quiet --locked --features testing --test runtime_docker --test agent_docker \
    -- --test-threads=2
  podman_down
  trap - EXIT
else
  say "podman is not here and could not be installed: NOT tested on it"
fi

step "runtime, agent and conformance on containerd"
containerd_up "$(mktemp -d)"
trap containerd_down EXIT
containerd_images registry.k8s.io/pause:3.2
KUBEBOOT_TEST_CRI=$CONTAINERD_SOCKET cargo test --quiet --locked --features testing --test runtime_cri --test agent_docker \
  --test fields_docker --test api_docker -- --test-threads=2
KUBEBOOT_TEST_CRI=$CONTAINERD_SOCKET cargo test --quiet --locked --features testing --test conformance
containerd_down
trap - EXIT

step "a minute of chaos"
./scripts/chaos.sh --seconds 60 --seed 7

step "the static-pod tutorial"
./scripts/tutorial.sh

step "a real control plane, end to end"
# A run that was killed in here (power, SIGKILL) left its control plane behind and this mark with it.
mark=$KUBEBOOT_CACHE/tests-have-the-machine
if [ -e "$mark" ] && [ -e /etc/kubernetes/manifests ]; then
  say "taking away the control plane that a killed test run left"
  "$KUBEBOOT_BIN" reset --force
fi
containerd_up "$(mktemp -d)"
trap containerd_down EXIT
[ -e /etc/kubernetes/manifests ] || { trap 'containerd_down; rm -f "$mark"' EXIT; touch "$mark"; }
KUBEBOOT_TEST_ETCD=$(./scripts/newer-etcd.sh)
export KUBEBOOT_TEST_ETCD
KUBEBOOT_TEST_CRI=$CONTAINERD_SOCKET cargo test --quiet --locked --features testing --test 'e2e*' -- --test-threads=1 --nocapture
containerd_down
trap 'rm -f "$mark"' EXIT

step "under a real systemd"
./scripts/systemd-image.sh
cargo test --quiet --locked --features testing --test 'systemd*' -- --test-threads=1 --nocapture

step "real nodes: kubeadm, kubelet, containerd"
cargo test --quiet --locked --features testing --test 'nodes*' -- --test-threads=1 --nocapture

step "quickstart, and away with it"
./scripts/quickstart.sh
"$KUBEBOOT_BIN" reset --force
step "all tests passed"
