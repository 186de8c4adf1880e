#!/usr/bin/env bash
# A Docker image of the etcd of the Debian release after this machine's, for the tests of upgrades across its minor
# versions.
#
#   scripts/newer-etcd.sh [REPOSITORY]        default: kubeboot-test/etcd
#
# Taken with apt from the machine's own mirror, and unpacked beside the etcd that is installed, which stays as it is.
# Prints the image's reference; the packages are kept in $KUBEBOOT_CACHE.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
repository=${1:-kubeboot-test/etcd}
docker_up

. /etc/os-release
case ${VERSION_CODENAME:-} in
  bookworm) next=trixie ;;
  *) die "no Debian release is known here whose etcd follows that of ${PRETTY_NAME:-this machine}" ;;
esac
cache=$KUBEBOOT_CACHE/etcd-$next
if [ ! -e "$cache/version" ]; then
  mirror=$(debian_mirror)
  rm -rf "$cache"
  mkdir -p "$cache/parts" "$cache/lists/partial" "$cache/debs/partial" "$cache/tree"
  echo "deb $mirror $next main" >"$cache/parts/$next.list"
  opts=(-qq -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$cache/parts" -o "Dir::State::lists=$cache/lists"
    -o "APT::Sandbox::User=root")
  say "fetching etcd-server of $next"
  # With the C library that it is linked against.
  (cd "$cache/debs" && apt-get "${opts[@]}" update && apt-get "${opts[@]}" download etcd-server libc6) >"$cache/apt.log" 2>&1 ||
    die "no etcd-server of $next to be had from $mirror: $(tail -n 3 "$cache/apt.log")"
  for deb in "$cache"/debs/*.deb; do dpkg-deb -x "$deb" "$cache/tree"; done
  for dir in lib lib64; do [ -e "$cache/tree/$dir" ] || ln -s "usr/$dir" "$cache/tree/$dir"; done
  dpkg-deb -f "$cache"/debs/etcd-server_*.deb Version | sed 's/[-+~].*//' >"$cache/version.part"
  mv "$cache/version.part" "$cache/version"
fi
image=$repository:$(cat "$cache/version")
docker image inspect "$image" >/dev/null 2>&1 ||
  tar -C "$cache/tree" -c . | docker import --change 'ENV PATH=/usr/bin' - "$image" >/dev/null
echo "$image"
