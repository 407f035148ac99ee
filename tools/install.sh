#!/bin/sh
# Makes .venv with hmctl, hypermesh-agent and the development tools; installs the packages that they and the lab need.
# Usage: tools/install.sh (from the project's root). Running it again changes only what is out of date.
set -eu

say() { printf '%s\n' "install: $*"; }
fail() { printf '%s\n' "install: $*" >&2; exit 1; }
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# Newest first. A python without ensurepip (Debian without python3-venv) cannot make a virtual environment.
find_python() {
  for python in python3.13 python3.12 python3.11 python3; do
    if has "$python" && "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
}

# The package that brings what find_python looks for, for the python that this system calls python3, else for the oldest that will do.
python_packages() {
  if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo python3-venv
  elif [ -n "$(apt-cache --quiet search '^python3\.11-venv$')" ]; then
    echo python3.11 python3.11-venv
  else
    echo python3 python3-venv
  fi
}

missing_for_lab() {
  has debootstrap || echo debootstrap
  has systemd-nspawn || echo systemd-container
  has nft || echo nftables
  has ip || echo iproute2
  has ssh-keygen || echo openssh-client
  has curl || echo curl
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    fail "needs root, and there is no sudo: run as root: $*"
  fi
}

apt_install() {
  say "installing packages: $*"
  set -- env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  as_root "$@" >/dev/null 2>&1 && return
  as_root apt-get update -qq # the lists were missing or old
  as_root "$@" >/dev/null
}

# A package as a file, in this folder.
fetch() {
  apt-get download -qq "$1" >/dev/null 2>&1 && return
  as_root apt-get update -qq
  apt-get download -qq "$1" >/dev/null
}

lacking=$(missing_for_lab | tr '\n' ' ')
if has apt-get; then
  [ -n "$(find_python)" ] || lacking="$lacking$(python_packages)"
  # shellcheck disable=SC2086  # package names are words
  [ -z "$lacking" ] || apt_install $lacking
elif [ -n "$lacking" ]; then
  say "there is no apt-get here. The lab (make demo, make test) runs on Debian and Ubuntu and needs: $lacking"
fi

python=$(find_python)
[ -n "$python" ] || fail "needs Python 3.11 or newer with its venv module (found: $(python3 --version 2>&1 || echo none))"

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  say "making .venv with $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv
fi
# For the end-to-end tests. Unpacked only: a package that is installed would start a registry on this machine.
if has apt-get && [ ! -x .venv/registry/usr/bin/docker-registry ]; then
  say "unpacking docker-registry into .venv"
  mkdir -p .venv/registry
  (cd .venv/registry && fetch docker-registry && dpkg-deb -x docker-registry_*.deb . && rm docker-registry_*.deb) ||
    say "it could not be had: the end-to-end test of registries will be left out"
fi
say "installing hypermesh and its libraries into .venv"
log=.venv/install.log # pip warns at length about what is of no consequence here
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[cli,agent,dev]' >"$log" 2>&1; then
  cat "$log" >&2
  fail "pip failed; its words stand above, and in $log"
fi
# pip compiles the libraries, not what is installed in place. Without this, whoever may not write here (sudo with
# PYTHONDONTWRITEBYTECODE, another user) compiles some 50 files at every command.
.venv/bin/python -m compileall -q hmcore hmctl node_agent
say "done: $(.venv/bin/hmctl --version)"
