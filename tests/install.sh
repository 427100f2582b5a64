#!/usr/bin/env bash
# Installs from Debian what is missing, and nothing else: `install.sh demo` what the demonstration needs, `observe`
# what looking at it with Prometheus needs, `tests` what the tests need, `bench` what the measurements need, `release`
# what a build that is guided by measurements needs. Asks apt only when something is missing, and sudo only when not root.
# No service is started: the demonstration and the tests start their own servers, in folders of their own.
set -euo pipefail

demo=(php-fpm php-sqlite3)
observe=(prometheus)
tests=("${demo[@]}" "${observe[@]}" php php-cli php-igbinary php-redis php-mysql php-mbstring php-xml php-gd php-curl
  redis-server mariadb-server wordpress nginx-light wrk curl chromium chromium-driver
  python3-prometheus-client)
bench=("${tests[@]}" libnginx-mod-http-lua lua-nginx-redis)
release=("${bench[@]}" llvm-19)

case "${1:-}" in
  demo) wanted=("${demo[@]}") ;;
  observe) wanted=("${observe[@]}") ;;
  tests) wanted=("${tests[@]}") ;;
  bench) wanted=("${bench[@]}") ;;
  release) wanted=("${release[@]}") ;;
  *) echo "usage: $0 demo|observe|tests|bench|release" >&2; exit 2 ;;
esac

installed() {
  # Any nginx will do: Debian has it in several packages.
  case "$1" in
    nginx-light) if PATH="$PATH:/usr/sbin" command -v nginx >/dev/null; then return 0; fi ;;
    # Only there so that WordPress takes PHP-FPM for its PHP: not wanted for itself.
    php) if dpkg-query --show wordpress >/dev/null 2>&1; then return 0; fi ;;
  esac
  [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${wanted[@]}"; do
  installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
  echo "not a Debian system: please install what these packages hold: ${missing[*]}" >&2
  exit 1
fi
# WordPress would bring Apache, which would be listening from the next start of the machine on: nginx and
# PHP-FPM are what it runs on here. An Apache that is there already stays.
refused=()
if ! installed apache2-bin; then refused=(apache2- '^libapache2-mod-php[0-9.]*$-'); fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
echo "installing ${missing[*]}"

# Debian starts a service as it installs it, unless this file says no (101). One that is there already is
# its owner's decision and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi

apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@"; }
apt update
apt install --yes --no-install-recommends "${missing[@]}" "${refused[@]}" >/dev/null
