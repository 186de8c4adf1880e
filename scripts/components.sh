#!/usr/bin/env bash
# Component binaries for machines that reach no image registry.
#
#   scripts/components.sh [--node] [VERSION ...]        default: v1.20.2
#
# Builds Kubernetes from Debian's `kubernetes` source package, stamped with each VERSION, takes etcd from Debian's
# etcd-server, and leaves them below $KUBEBOOT_CACHE (default: ~/.cache/kubeboot):
#
#   components/VERSION/{kube-apiserver,kube-controller-manager,kube-scheduler,etcd,pause}
#
# With --node also what the tests with real nodes need, in the same build: components/VERSION/{kubeadm,kubelet,kube-proxy}
#
# What is there already is not built again, unless REVISION below has changed. `kubeboot images build --from-dir` makes images of such a directory.
# The source is 1.20.2 whatever the stamp says: a second stamp exists to try upgrades between patch versions.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

components=(kube-apiserver kube-controller-manager kube-scheduler)
if [ "${1:-}" = --node ]; then
  components+=(kubeadm kubelet kube-proxy)
  shift
fi
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(v1.20.2)
src="$KUBEBOOT_CACHE/src"
# Of what this script does to the source: a new one builds anew.
REVISION=2
tree="$src/kubernetes"

# One build at a time: quickstart and the tests may meet here.
mkdir -p "$KUBEBOOT_CACHE"
exec 9>"$KUBEBOOT_CACHE/.components.lock"
flock 9

complete() {
  local dir=$KUBEBOOT_CACHE/components/$1 name
  [ -e "$dir/.revision-$REVISION" ] || return 1
  for name in "${components[@]}" etcd pause; do [ -x "$dir/$name" ] || return 1; done
}

# The machine's own apt sources, asked for source packages, in a place of their own: the system's lists stay as they are.
fetch_source() {
  if [ ! -d "$tree" ]; then download_source; fi
  # The vendored release walks maps in a way that Go 1.18 has ended: every JSON object with a map in it would panic.
  local package=github.com/modern-go/reflect2
  rm -f "$tree/vendor/$package"/*.{go,s}
  cp "/usr/share/gocode/src/$package"/*.{go,s} "$tree/vendor/$package/"
}

download_source() {
  local apt=$src/apt file
  rm -rf "$src"
  mkdir -p "$apt/parts" "$apt/lists/partial"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] && sed -n 's/^deb /deb-src /p' "$file" >"$apt/parts/$(basename "$file" .list).list"
  done
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$apt/parts/$(basename "$file")"
  done
  local opts=(-o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists"
    -o "APT::Sandbox::User=root")
  say "fetching the kubernetes source package"
  apt-get "${opts[@]}" update -qq || true
  (cd "$src" && apt-get "${opts[@]}" source --only-source -qq kubernetes=1.20.2+really1.20.2-1.1 2>/dev/null ||
    apt-get "${opts[@]}" source --only-source -qq kubernetes) >"$src/fetch.log" 2>&1 || {
    tail -5 "$src/fetch.log" >&2
    die "no kubernetes source package to be had from this machine's apt sources"
  }
  mv "$src"/kubernetes-*/ "$tree"
}

build() {
  local version=$1 out=$KUBEBOOT_CACHE/components/$1 gopath=$src/go name missing=()
  rm -rf "$out.part"
  mkdir -p "$out.part"
  # What an earlier build with fewer components has made stays.
  [ ! -e "$out/.revision-$REVISION" ] || cp -a "$out/." "$out.part/"
  for name in "${components[@]}"; do [ -x "$out.part/$name" ] || missing+=("$name"); done
  say "building Kubernetes $version: ${missing[*]} (about ten minutes the first time)"
  mkdir -p "$gopath/src/k8s.io"
  ln -sfn "$tree" "$gopath/src/k8s.io/kubernetes"
  cat >"$src/version.sh" <<VERSION
KUBE_GIT_COMMIT='faecb196815e248d3ecfb03c680a4507229c2a56'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='$version'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='$(echo "$version" | cut -d. -f2)'
VERSION
  (cd "$gopath/src/k8s.io/kubernetes" &&
    GOPATH=$gopath GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOLDFLAGS='-s -w' KUBE_GIT_VERSION_FILE="$src/version.sh" \
      make WHAT="$(printf 'cmd/%s ' "${missing[@]}")") >"$src/build-$version.log" 2>&1 || {
    tail -20 "$src/build-$version.log" >&2
    die "building Kubernetes failed; the whole log is $src/build-$version.log"
  }
  for name in "${missing[@]}"; do
    install -m 0755 "$(find "$tree/_output" -type f -name "$name" -perm -u+x | head -n 1)" "$out.part/$name"
  done
  gcc -Os -static -o "$out.part/pause" "$(find "$tree/build/pause" -name pause.c | head -n 1)"
  install -m 0755 "$(command -v etcd)" "$out.part/etcd"
  touch "$out.part/.revision-$REVISION"
  rm -rf "$out"
  mv "$out.part" "$out"
}

for version in "${versions[@]}"; do
  if complete "$version"; then
    say "components $version: $KUBEBOOT_CACHE/components/$version"
    continue
  fi
  need_packages golang-go=go make rsync gcc dpkg-dev=dpkg-source etcd-server=etcd libc6-dev=/usr/include/stdlib.h \
    golang-github-modern-go-reflect2-dev=/usr/share/gocode/src/github.com/modern-go/reflect2
  fetch_source
  build "$version"
  say "components $version: $KUBEBOOT_CACHE/components/$version"
done
