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
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
}
