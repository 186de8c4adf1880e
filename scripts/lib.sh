# What the scripts share. Sourced, never run.
# shellcheck shell=bash

# Everything slow that a fresh machine can make again lives here, outside the checkout.
KUBEBOOT_CACHE=${KUBEBOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubeboot}
export KUBEBOOT_CACHE
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_packages PACKAGE[=COMMAND|=/FILE] ...: installs the packages whose command or file is not there.
need_packages() {
  local item package probe missing=()
  for item in "$@"; do
    package=${item%%=*}
    probe=${item#*=}
    case $probe in
      /*) [ -e "$probe" ] || missing+=("$package") ;;
      *) command -v "$probe" >/dev/null 2>&1 || missing+=("$package") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "please install: ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || die "please install (or run this as root): ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
}

# The mirror that this machine installs Debian from.
debian_mirror() {
  local mirror
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | tr ' ' '\n' |
    grep -m 1 -E '^https?://.*/(debian|ubuntu)/?$' || true)
  [ -n "$mirror" ] || die "no apt mirror found in /etc/apt"
  echo "$mirror"
}

# The Docker Engine, started where nobody has: by systemd, else as a process of its own with a log.
docker_up() {
  need_packages docker.io=dockerd iptables ca-certificates=/etc/ssl/certs/ca-certificates.crt
  # Newer releases have the client in a package of its own.
  command -v docker >/dev/null || need_packages docker-cli=docker
  docker version >/dev/null 2>&1 && return 0
  if [ -d /run/systemd/system ]; then
    systemctl enable --now docker >&2
  else
    say "starting dockerd (log: $KUBEBOOT_CACHE/dockerd.log)"
    start_dockerd
  fi
  local deadline=$((SECONDS + 90))
  until docker version >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || die "dockerd does not answer after 90 s: $(tail -n 3 "$KUBEBOOT_CACHE/dockerd.log" 2>/dev/null)"
    # One that was killed may leave a containerd behind which the next one waits for in vain, and then gives up.
    if [ ! -d /run/systemd/system ] && ! kill -0 "$dockerd" 2>/dev/null; then
      pkill -KILL -f '^containerd --config /var/run/docker/containerd/containerd.toml' || true
      rm -f /var/run/docker/containerd/containerd.pid
      start_dockerd
    fi
    sleep 0.2
  done
}

start_dockerd() {
  mkdir -p "$KUBEBOOT_CACHE"
  # A dockerd that was killed leaves its pid file, and the next one believes it, whoever has the pid now.
  local pid
  pid=$(cat /var/run/docker.pid 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != dockerd ] && rm -f /var/run/docker.pid
  setsid dockerd >"$KUBEBOOT_CACHE/dockerd.log" 2>&1 </dev/null &
  dockerd=$!
}

# Rust of the version that Cargo.toml asks for.
rust_up() {
  local want have
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")
  if ! command -v cargo >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
    need_packages rustup
    rustup toolchain install --profile minimal --component rustfmt,clippy stable >&2
  fi
  command -v cargo >/dev/null || die "no Rust here: install Rust $want or newer with rustup (https://rustup.rs) and run this again"
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
    die "Rust $have is too old: kubeboot needs $want (rustup update)"
  need_packages gcc=cc libc6-dev=/usr/include/stdlib.h
}

# kubectl, for looking at what was made. Debian has it as kubernetes-client.
kubectl_up() {
  command -v kubectl >/dev/null && return 0
  need_packages kubernetes-client=kubectl
}

# images_up BIN VERSION: component images of VERSION are in Docker, built from VERSION's binaries if need be.
images_built() {
  local bin=$1 version=$2
  "$bin" images list --kubernetes-version "$version" --missing >/dev/null 2>&1 && return 0
  "$(dirname "${BASH_SOURCE[0]}")/components.sh" "$version"
  "$bin" images build --from-dir "$KUBEBOOT_CACHE/components/$version" --tag-version "$version"
}

# podman's Docker-compatible socket, with a store of its own in the directory DIR: podman_up DIR sets PODMAN_SOCKET and
# PODMAN_PID. Where podman is missing it is installed; podman_down ends it and takes the store away.
podman_up() {
  need_packages podman containernetworking-plugins=/usr/lib/cni/bridge
  PODMAN_DIR=$1 PODMAN_SOCKET=$1/podman.sock
  # Docker speaks HTTP with registries of this machine, podman when it is told to.
  printf '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n' >"$1/registries.conf"
  # Where both are here, podman takes crun, which does not find its way in every layout of cgroup v1.
  CONTAINERS_REGISTRIES_CONF=$1/registries.conf \
    podman --root "$1/store" --runroot "$1/run" --runtime "$(command -v runc || command -v crun)" \
    system service --time=0 "unix://$PODMAN_SOCKET" >"$1/podman.log" 2>&1 </dev/null &
  PODMAN_PID=$!
  local deadline=$((SECONDS + 60))
  until DOCKER_HOST=unix://$PODMAN_SOCKET docker version >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 "$PODMAN_PID" 2>/dev/null; then
      die "podman does not answer: $(tail -n 3 "$1/podman.log")"
    fi
    sleep 0.1
  done
}

podman_down() {
  kill "$PODMAN_PID" 2>/dev/null || true
  wait "$PODMAN_PID" 2>/dev/null || true
  podman --root "$PODMAN_DIR/store" --runroot "$PODMAN_DIR/run" rm --force --all >/dev/null 2>&1 || true
  umount -l "$PODMAN_DIR"/store/overlay 2>/dev/null || true
  rm -rf "$PODMAN_DIR"
}

# A containerd of its own with its CRI on, below the directory DIR: containerd_up DIR sets CONTAINERD_SOCKET and
# CONTAINERD_PID. Docker's own is left alone. containerd_down ends it and takes everything of it away.
containerd_up() {
  need_packages containerd containernetworking-plugins=/usr/lib/cni/bridge
  command -v runc >/dev/null || command -v crun >/dev/null || need_packages runc
  local runtime=runc
  command -v runc >/dev/null || runtime=crun
  CONTAINERD_DIR=$1 CONTAINERD_SOCKET=$1/containerd.sock
  mkdir -p "$1/cni"
  # Two networks at once must not meet, nor one Docker's.
  local bridge subnet
  bridge=kb$(printf %s "$1" | cksum | cut -c1-8)
  subnet=10.87.$((10#${bridge#kb} % 256)).0/24
  cat >"$1/cni/10-kubeboot.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "$bridge", "plugins": [
  {"type": "bridge", "bridge": "$bridge", "isGateway": true, "ipMasq": true, "ipam": {
    "type": "host-local", "ranges": [[{"subnet": "$subnet"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$1/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
  # A machine that forbids negative OOM scores would start no sandbox; where they are allowed nothing is to be in their way.
  local restrict=false
  (echo -998 >"/proc/$BASHPID/oom_score_adj") 2>/dev/null || restrict=true
  cat >"$1/config.toml" <<EOF
version = 2
root = "$1/root"
state = "$1/state"
[grpc]
  address = "$CONTAINERD_SOCKET"
[ttrpc]
  address = "$CONTAINERD_SOCKET.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.2"
  restrict_oom_score_adj = $restrict
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$1/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$runtime"
EOF
  containerd --config "$1/config.toml" >"$1/containerd.log" 2>&1 </dev/null &
  CONTAINERD_PID=$!
  local deadline=$((SECONDS + 60))
  until ctr --address "$CONTAINERD_SOCKET" plugins ls 2>/dev/null | grep -q 'grpc.v1 *cri .*ok'; do
    if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 "$CONTAINERD_PID" 2>/dev/null; then
      die "containerd does not answer: $(tail -n 3 "$1/containerd.log")"
    fi
    sleep 0.1
  done
}

# containerd_images IMAGE...: brings images of Docker's over.
containerd_images() {
  docker save "$@" | ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io images import - >/dev/null
}

containerd_down() {
  local ctr=(ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io) task
  for task in $("${ctr[@]}" tasks ls --quiet 2>/dev/null); do
    "${ctr[@]}" tasks rm --force "$task" >/dev/null 2>&1 || true
  done
  for task in $("${ctr[@]}" containers ls --quiet 2>/dev/null); do
    "${ctr[@]}" containers rm "$task" >/dev/null 2>&1 || true
  done
  kill "$CONTAINERD_PID" 2>/dev/null || true
  wait "$CONTAINERD_PID" 2>/dev/null || true
  local mount
  while read -r mount; do umount -l "$mount" 2>/dev/null || true; done \
    < <(awk -v dir="$CONTAINERD_DIR/" 'index($2, dir) == 1 {print $2}' /proc/self/mounts | sort -r)
  ip link delete "kb$(printf %s "$CONTAINERD_DIR" | cksum | cut -c1-8)" 2>/dev/null || true
  rm -rf "$CONTAINERD_DIR"
}
