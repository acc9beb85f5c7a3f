#!/usr/bin/env bash
# Builds edge-agent as a static binary for one target, at target/dist/<target>/edge-agent. The same sources give the same
# bytes, wherever they lie and whenever they are built (build.sh --help).
#
# The C compiler and the linker are Zig's, from PyPI: they carry musl for every target, so nothing of the machine's own C
# library ends up in the binary. The standard library of Rust comes from rustup where it can give it; otherwise it is built
# from the source that a distribution packs with its compiler (Debian: rust-web-src), which needs neither Docker nor rustup.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: build.sh [--way rustup|source|cross] [--place FOLDER] TARGET

TARGET is aarch64-unknown-linux-musl or x86_64-unknown-linux-musl.
  --way    where the standard library comes from: rustup (a target of rustup's), source (built along, from the package
           rust-web-src), cross (the program `cross`, with Docker). Without it: the first of them that works here.
  --place  where cargo keeps its files, instead of target/dist
The binary is FOLDER/TARGET/dist/edge-agent; its path is the last line printed.
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
speaker=release
# shellcheck source=tests/stack/install.sh
source "$root/tests/stack/install.sh"
release_tools=$tools/release
place=$root/target/dist
way=
target=

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --way) way=${2:?--way needs a word}; shift ;;
    --place) place=${2:?--place needs a folder}; shift ;;
    aarch64-unknown-linux-musl | x86_64-unknown-linux-musl) target=$1 ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
[ -n "$target" ] || { usage >&2; exit 64; }
mkdir -p "$place"
place=$(cd "$place" && pwd)

# Where Debian's packages put a compiler together with the source of its standard library.
distribution_rustc=/usr/bin/rustc
source_of() { echo "$("$distribution_rustc" --print sysroot)/lib/rustlib/src/rust/library"; }
has_source() { [ -x "$distribution_rustc" ] && [ -f "$(source_of)/Cargo.lock" ]; }

has_rustup_target() {
  have rustup || return 1
  rustup target list --installed 2>/dev/null | grep -qx "$target" && return 0
  say "asking rustup for $target"
  # A machine that only reaches a mirror of packages would otherwise wait here for minutes.
  timeout 120 rustup target add "$target" >&2 2>/dev/null
}

has_cross() { have cross && docker info >/dev/null 2>&1; }

# What OpenSSL and librdkafka are built with, and Python for Zig. Cargo comes from rustup, or with the source way.
install_host_tools() {
  { have cc && have make; } || need "a C compiler" "gcc libc6-dev make" "gcc make" base-devel -
  have perl || need "Perl" perl perl perl -
  python3 -c 'import ensurepip, venv' 2>/dev/null || need "Python with venv" "python3 python3-venv" python3 python python
  install_needed || fail "install by hand what is named above, then run this again"
}

install_source() {
  has_source && return 0
  [ "$manager" = apt-get ] || return 1
  need "a Rust compiler with the source of its library" "rustc-web cargo-web libstd-rust-web-dev rust-web-src" - - -
  install_needed && has_source
}

case $way in
  rustup) has_rustup_target || fail "rustup cannot give $target here" ;;
  source) install_source || fail "no compiler with the source of its standard library (Debian: rustc-web rust-web-src)" ;;
  cross) if ! has_cross; then fail "cross or a running Docker is missing"; fi ;;
  '')
    if has_rustup_target; then
      way=rustup
    elif has_cross; then
      way=cross
    elif install_source; then
      way=source
    else
      fail "none of these can be had here: $target from rustup, cross with Docker, Debian's rust-web-src"
    fi
    ;;
  *) usage >&2; exit 64 ;;
esac

[ "$way" = cross ] || install_host_tools

# One time for everything that would write the present one into what it builds.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$place

if [ "$way" = cross ]; then
  say "building $target with cross"
  (cd "$root" && CROSS_CONFIG=cross.toml cross build --locked --profile dist -p edge-agent --features vendored-openssl --target "$target" >&2)
  echo "$place/$target/dist/edge-agent"
  exit 0
fi

# --- Zig and cargo-zigbuild, at one version, for this tree only.
here=$root/.ci/release
python_environment "Zig and cargo-zigbuild" "$release_tools" "$here/requirements.txt"
export PATH=$release_tools/bin:$PATH

# --- Compilers for librdkafka's and OpenSSL's own build systems, which know nothing of cargo's targets. They are found by
# name in PATH, because OpenSSL writes the words it was compiled with into the library; for the same reason the paths to
# forget are told here and not in CFLAGS.
zig_target=${target%%-*}-linux-musl
wrappers=$release_tools/bin
cargo_home=${CARGO_HOME:-$HOME/.cargo}
for language in cc c++; do
  # Nothing unwinds through C: a panic in a callback of librdkafka's ends at its edge.
  tables=
  if [ "$language" = cc ]; then tables="-fno-unwind-tables -fno-asynchronous-unwind-tables"; fi
  cat >"$wrappers/k12n-$language-$target" <<WRAPPER
#!/usr/bin/env bash
# Written by .ci/release/build.sh.
words=()
for word in "\$@"; do
  case \$word in
    # Zig names a target in its own way, and is told which below.
    --target=*) ;;
    # OpenSSL would remember the folder it was built in, and look there for modules, which a static binary has none of.
    -DMODULESDIR=*) words+=('-DMODULESDIR="/usr/local/ssl/ossl-modules"') ;;
    -DENGINESDIR=*) words+=('-DENGINESDIR="/usr/local/ssl/engines-3"') ;;
    # OpenSSL and librdkafka ask for speed; what matters here is the 10 MB. Their hot loops are assembler.
    -O2 | -O3) words+=(-Os) ;;
    *) words+=("\$word") ;;
  esac
done
exec python3 -m ziglang $language -target $zig_target -g0 $tables -ffunction-sections -fdata-sections -ffile-prefix-map="$place"=/target \\
  -ffile-prefix-map="$cargo_home"=/cargo -ffile-prefix-map="$root"=/source "\${words[@]}"
WRAPPER
  chmod +x "$wrappers/k12n-$language-$target"
done
for tool in ar ranlib; do
  printf '#!/usr/bin/env bash\nexec python3 -m ziglang %s "$@"\n' "$tool" >"$wrappers/k12n-$tool"
  chmod +x "$wrappers/k12n-$tool"
done

# OpenSSL holds many ciphers and protocols that neither TLS 1.2 and 1.3 to Redpanda nor SCRAM use; together they are a megabyte.
# openssl-src takes no options of ours, but lets the Perl be named that runs ./Configure.
cat >"$wrappers/k12n-perl" <<'WRAPPER'
#!/usr/bin/env bash
# Written by .ci/release/build.sh.
more=()
if [ "${1:-}" = ./Configure ]; then
  for part in argon2 aria bf blake2 camellia cast cmp cms ct dsa dtls ec2m gost http idea lms md4 mdc2 ml-dsa multiblock \
    nextprotoneg ocb ocsp quic rc2 rc4 rfc3779 rmd160 scrypt seed siphash siv slh-dsa sm2 sm3 sm4 srp srtp ssl-trace \
    tls-deprecated-ec ts uplink whirlpool; do
    more+=("no-$part")
  done
fi
exec perl "$@" "${more[@]}"
WRAPPER
chmod +x "$wrappers/k12n-perl"
export OPENSSL_SRC_PERL=k12n-perl

name=${target//-/_}
export CC=k12n-cc-$target CXX=k12n-c++-$target AR=k12n-ar RANLIB=k12n-ranlib
export "CC_$name=$CC" "CXX_$name=$CXX" "AR_$name=$AR" "RANLIB_$name=$RANLIB"
# What runs during the build itself is for this machine.
export HOST_CC=cc HOST_CXX=c++ HOST_AR=ar
# librdkafka's version script names symbols that a build without their features does not have.
export LDFLAGS=-Wl,--undefined-version

forget="--remap-path-prefix=$root=/source --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$place=/target"
extra=()
if [ "$way" = source ]; then
  export RUSTC=$distribution_rustc RUSTC_BOOTSTRAP=1
  # Zig brings musl and its start files, so those of rustc must stay away.
  forget="-C link-self-contained=no $forget"
  extra=("-Zbuild-std=std,panic_unwind")
fi
sysroot=$("${RUSTC:-rustc}" --print sysroot)
export RUSTFLAGS="$forget --remap-path-prefix=$sysroot=/rust"

say "building $target, its standard library from $way"
(cd "$root" && cargo-zigbuild zigbuild --locked --profile dist "${extra[@]}" -p edge-agent --features vendored-openssl --target "$target" >&2)
echo "$place/$target/dist/edge-agent"
