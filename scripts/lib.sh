# shellcheck shell=bash
# Shared by scripts/setup and scripts/pgvector: messages, root rights, apt. Sourced, never run.

say() { printf 'setup: %s\n' "$*"; }

# die WHAT NEXT: one line of what went wrong, one of what to do.
die() {
  printf 'setup: error: %s\n' "$1" >&2
  [[ $# -lt 2 ]] || printf 'setup:        %s\n' "$2" >&2
  exit 4
}

# Run a command as root: directly, or by sudo (which asks for a password only where a terminal can answer).
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif ! command -v sudo >/dev/null; then
    die "this step needs root rights and there is no sudo: $*" "run scripts/setup once as root, then again as yourself"
  elif [[ -t 0 ]]; then
    sudo -- "$@"
  else
    sudo -n -- "$@"
  fi
}

installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Version of package $1 that apt would install; empty when apt has none.
apt_version() {
  LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p' | grep -v '(none)' || true
}

# Refresh the package lists once per run. apt waits for the dpkg lock but not for the lock of the lists.
apt_refresh() {
  [[ -z ${GEOFIX_APT_FRESH:-} ]] || return 0
  local attempt
  for attempt in 1 2 3 4 5 6; do
    if as_root apt-get -q -o Acquire::Retries=3 update; then
      export GEOFIX_APT_FRESH=1
      return 0
    fi
    say "apt-get update failed (attempt $attempt of 6); another apt may be running, waiting 10 s"
    sleep 10
  done
  die "apt-get update failed" "see apt's message above"
}

# apt_install WHY PACKAGE...: install those that are missing, saying which and why beforehand.
apt_install() {
  local why=$1 package wanted=()
  shift
  for package in "$@"; do installed "$package" || wanted+=("$package"); done
  ((${#wanted[@]})) || return 0
  apt_refresh
  say "installing by apt: ${wanted[*]}"
  say "  why: $why"
  # RUNLEVEL=1 keeps init scripts from starting the daemons: geofix runs private ones of its own.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 install --no-install-recommends "${wanted[@]}" ||
    die "apt could not install ${wanted[*]}" "see apt's message above"
}
