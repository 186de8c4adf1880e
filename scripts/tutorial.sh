#!/usr/bin/env bash
# The static-pod tutorial, step by step and for real: a machine with no API server runs a web server from a manifest in
# a directory.
#
#   sudo ./scripts/tutorial.sh
#
# It needs Docker, makes its own directory below /tmp and port 8080, checks every step, and takes everything away again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
case ${1:-} in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ "$(id -u)" -eq 0 ] || die "this needs root: sudo $0"
docker_up
need_packages busybox-static=/bin/busybox curl
if [ -z "${KUBEBOOT_BIN:-}" ]; then
  rust_up
  cargo build --release --locked --quiet
fi
bin=${KUBEBOOT_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/kubeboot}
work=$(mktemp -d /tmp/kubeboot-tutorial.XXXXXX)
socket=$work/agent.sock
agent=
trap clean_up EXIT

clean_up() {
  [ -z "$agent" ] || kill "$agent" 2>/dev/null || true
  docker ps -aq --filter "label=dev.kubeboot.agent=$work/root" | xargs -r docker rm -fv >/dev/null
  docker rmi -f kubeboot.tutorial/web:1 kubeboot.tutorial/pause:1 >/dev/null 2>&1 || true
  rm -rf "$work"
}

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command and runs it.
show() {
  local line="$*"
  line=${line//$bin/kubeboot}
  printf '$ %s\n' "${line//$work/DIR}"
  "$@"
}
# until_it CONDITION WHAT: asks again until the condition holds; docker has no command that waits for it.
until_it() {
  local deadline=$((SECONDS + 30))
  until eval "$1"; do
    [ "$SECONDS" -lt "$deadline" ] || die "not within 30 s: $2; the agent said: $(tail -n 5 "$work/agent.log")"
    sleep 0.1
  done
}
web_containers() { docker ps --filter "label=dev.kubeboot.agent=$work/root" --filter label=io.kubernetes.container.name=web "$@"; }
seen() { printf '$ docker ps\n'; web_containers --format 'table {{.Names}}\t{{.Status}}'; }
names() { web_containers --format '{{.Names}}'; }
page() { curl -sf --max-time 2 http://127.0.0.1:8080/ || true; }

# Two images out of this machine's busybox, for a machine without a registry.
images() {
  mkdir -p "$work/image/bin"
  cp /bin/busybox "$work/image/bin/busybox"
  ln -s busybox "$work/image/bin/sh"
  tar -C "$work/image" -c . | docker import - kubeboot.tutorial/web:1 >/dev/null
  tar -C "$work/image" -c . | docker import --change 'CMD ["/bin/busybox","sleep","2147483647"]' - kubeboot.tutorial/pause:1 >/dev/null
}

manifest() {
  cat >"$work/.static-web.yaml" <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: static-web
  labels:
    role: myrole
spec:
  terminationGracePeriodSeconds: 2
  containers:
    - name: web
      image: kubeboot.tutorial/web:1
      command: [/bin/sh, -c]
      args: ["busybox mkdir -p /www; echo '$1' >/www/index.html; exec busybox httpd -f -p 8080 -h /www"]
      ports:
        - {name: web, containerPort: 8080, hostPort: 8080, protocol: TCP}
YAML
  mv "$work/.static-web.yaml" "$work/manifests/static-web.yaml"
}

start_agent() {
  local line="$*"
  printf '$ kubeboot agent %s &\n' "${line//$work/DIR}"
  "$bin" agent "$@" --root-dir "$work/root" --control-socket "$socket" --hostname-override worker --healthz-port 0 \
    --pod-infra-container-image kubeboot.tutorial/pause:1 >>"$work/agent.log" 2>&1 &
  agent=$!
}

images
mkdir -p "$work/manifests"

step "1. An agent that is told to watch a directory"
start_agent --pod-manifest-path "$work/manifests"

step "2. A manifest in it: the pod runs, with no API server"
manifest "hello from a static pod"
show sed -n 1,8p "$work/manifests/static-web.yaml"
until_it '[ "$(page)" = "hello from a static pod" ]' "the page"
seen
[[ $(names) == k8s_web_static-web-worker_default_*_0 ]]
show curl -s http://127.0.0.1:8080/
show "$bin" agent ps --control-socket "$socket"

step "3. It crashes: it is started again"
show docker kill "$(names)"
until_it '[[ $(names) == k8s_web_static-web-worker_default_*_1 ]]' "the restarted container"
seen

step "4. The manifest is edited: the pod is replaced"
manifest "hello again, edited"
until_it '[ "$(page)" = "hello again, edited" ]' "the edited page"
show curl -s http://127.0.0.1:8080/

step "5. Anything but a Pod is refused, and hurts nobody"
cat >"$work/manifests/set.yaml" <<'YAML'
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: static-set}
spec: {replicas: 2}
YAML
until_it 'grep -q "ReplicaSet (apps/v1)" < <("$bin" status --control-socket "$socket" 2>&1)' "the refusal in the status"
{ show "$bin" status --control-socket "$socket" || true; } 2>&1
show "$bin" agent events --control-socket "$socket" static-web
[ "$(page)" = "hello again, edited" ]
rm "$work/manifests/set.yaml"

step "6. The manifest is moved out: the pod is gone; and back: it is there"
show mv "$work/manifests/static-web.yaml" "$work/"
until_it '[ -z "$(docker ps -aq --filter label=dev.kubeboot.agent='"$work"'/root)" ]' "no container left"
seen
show mv "$work/static-web.yaml" "$work/manifests/"
until_it '[ "$(page)" = "hello again, edited" ]' "the page again"

step "7. The same by a configuration file; the pod that runs is taken over as it is"
before=$(web_containers --no-trunc -q)
kill "$agent"; wait "$agent" || true
cat >"$work/config.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: $work/manifests
YAML
show cat "$work/config.yaml"
start_agent --config "$work/config.yaml"
until_it '"$bin" status --control-socket "$socket" >/dev/null 2>&1' "a healthy report"
[ "$(web_containers --no-trunc -q)" = "$before" ] || die "the pod was restarted"
show "$bin" agent ps --control-socket "$socket"
rm "$work/manifests/static-web.yaml"
until_it '[ -z "$(docker ps -aq --filter label=dev.kubeboot.agent='"$work"'/root)" ]' "no container left"
step "Done: every step did what it should."
