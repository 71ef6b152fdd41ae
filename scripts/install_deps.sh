#!/bin/sh
# Installs what building, testing and the demo need, as Debian or Ubuntu packages.
# Does nothing, at once, when everything is there; asks nothing.
#
#   scripts/install_deps.sh [--bench] [--aarch64] [--no-optional] [--list]
#
#   --bench         also what dev/bench and the plots compare with (PyTorch, Matplotlib)
#   --aarch64       also what tests/long/aarch64.sh needs: cross compiler, emulator and libraries of the arm64 port
#   --no-optional   leave out what the program can do without (MPI, SentencePiece, the demo text, the Python of sweeps)
#   --list          print the packages and exit
#
# Optional packages that cannot be installed are only warned about. On other
# systems it prints what to install by hand and exits with status 1.
set -eu

required="make g++ git clang-format libcli11-dev libspdlog-dev nlohmann-json3-dev libxxhash-dev libpcre2-dev zlib1g-dev"
required="$required libzstd-dev libicu-dev libgtest-dev libtomlplusplus-dev libhwloc-dev libsodium-dev procps"
blas="libdnnl-dev"                     # oneDNN
blas_fallback="libopenblas-openmp-dev" # only where oneDNN is not packaged
optional="bible-kjv libsentencepiece-dev libopenmpi-dev openmpi-bin python3"
bench="python3-torch python3-venv python3-matplotlib"
aarch64="g++-aarch64-linux-gnu qemu-user libspdlog-dev:arm64 libfmt-dev:arm64 libxxhash-dev:arm64 libpcre2-dev:arm64"
aarch64="$aarch64 zlib1g-dev:arm64 libzstd-dev:arm64 libicu-dev:arm64 libgtest-dev:arm64 libhwloc-dev:arm64"
aarch64="$aarch64 libsodium-dev:arm64 libdnnl2:arm64"

say() { printf '%s\n' "install_deps: $*" >&2; }

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

list=no
foreign=""
for argument in "$@"; do
    case $argument in
        --bench) required="$required $bench" ;;
        --aarch64) required="$required $aarch64" foreign=arm64 ;;
        --no-optional) optional="" ;;
        --list) list=yes ;;
        -h | --help) usage; exit 0 ;;
        *) say "unknown option $argument"; usage >&2; exit 2 ;;
    esac
done

if [ $list = yes ]; then
    # shellcheck disable=SC2086  # lists of words, here and below
    printf '%s\n' $required $blas $optional
    exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    cat >&2 <<'END'
install_deps: this is not Debian or Ubuntu. Please install with your own package manager:
  GNU make, g++ 12 or newer (with OpenMP), git, clang-format 14 (only for make lint and format)
  oneDNN (oneapi-src/oneDNN 2.6 or newer, built for OpenMP)
  CLI11, spdlog (compiled, with external fmt), fmt, nlohmann-json, toml++ 3, hwloc 2, libsodium, xxHash, PCRE2, zlib,
  zstd, ICU, GoogleTest, procps (pgrep, in tests)
  optional: Open MPI, SentencePiece, and any text to train on instead of the demo's (./train_gpt --data=your.txt)
END
    exit 1
fi

# Prints those of its arguments that are not installed.
missing_of() {
    for package in "$@"; do
        printf '%s\n' "$installed" | grep -qx "$package install ok installed" || printf '%s ' "$package"
    done
}

look() {
    # dpkg-query fails when it knows nothing of one name; what it printed of the others is good.
    # shellcheck disable=SC2086
    installed=$(dpkg-query -W -f '${Package} ${Status}\n${Package}:${Architecture} ${Status}\n' \
        $required $blas $blas_fallback $optional 2>/dev/null || true)
    # shellcheck disable=SC2086
    { need=$(missing_of $required) && want=$(missing_of $optional) && need_blas=$(missing_of $blas); }
}

# Whether the package lists offer PACKAGE.
offered() { apt-cache show "$1" >/dev/null 2>&1; }

look
if [ -n "$need_blas" ] && [ -z "$(missing_of $blas_fallback)" ] && ! offered $blas; then
    need_blas="" # the fallback is what this system has
fi
[ -n "$need$need_blas$want" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif ! command -v sudo >/dev/null; then
    say "missing: $need$need_blas$want"
    say "neither root nor sudo: as root, run  apt-get install $need$need_blas$want"
    exit 1
elif [ -t 0 ]; then
    as_root="sudo" # may ask for the password, on a terminal only
else
    as_root="sudo -n"
fi

# Runs apt-get; a second time if the first one fails, since mirrors do hiccup.
apt() {
    # shellcheck disable=SC2086
    set -- $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@"
    "$@" </dev/null >&2 || { sleep 3; "$@" </dev/null >&2; }
}

install() { apt install -y --no-install-recommends "$@"; }

say "missing: $need$need_blas$want"
[ -z "$foreign" ] || $as_root dpkg --add-architecture $foreign
apt update || say "warning: the package lists could not be refreshed"

if [ -n "$need_blas" ] && ! offered $blas; then
    say "no $blas here, using $blas_fallback"
    need_blas=$blas_fallback
fi
# shellcheck disable=SC2086
if [ -n "$need$need_blas" ] && ! install $need $need_blas; then
    say "could not install: $need$need_blas"
    exit 1
fi
for package in $want; do # one by one, so that one failure does not stop the others
    install "$package" || say "warning: could not install $package (optional)"
done
