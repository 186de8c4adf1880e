#!/usr/bin/env bash
# Lets everything happen to an agent that happens to machines, and sees that it comes right again:
#
#   sudo ./scripts/chaos.sh [--seconds N] [--seed N]        default: 600 seconds, seed 1
#
# A dozen static pods run on a dockerd of the run's own (the machine's Docker is left alone), with --live-restore in the
# first half and without it in the second. What happens, and in which order, follows from the seed: containers, pause
# containers, the agent and dockerd are killed or stopped; manifests are edited, removed, spoilt; the directory is
# replaced; the log volume is full; the agent's clock jumps. Every 25 steps all that must be wanted again runs and
# nothing else does; at the end nothing may be left: no container, mount, cgroup, log or directory.
# KUBEBOOT_BIN names the program to try; without it cargo's debug build is.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
case ${1:-} in -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ "$(id -u)" -eq 0 ] || die "dockerd needs root: sudo $0 $*"
rust_up
need_packages docker.io=dockerd iproute2=ip busybox-static=/bin/busybox
command -v docker >/dev/null || need_packages docker-cli=docker
need_packages faketime
exec cargo test --quiet --locked --features testing --test chaos -- --seconds 600 "$@"
