#!/usr/bin/env bash
# make release: builds edge-agent for both targets and puts one tarball a target under dist/, with SHA256SUMS. The last line
# sums up. The same sources give the same bytes: file order, times and owners in the tarball are fixed.
#
# usage: package.sh [TARGET...]      without one: aarch64 (the Pis) and x86_64; build.sh --help has the ways it can build
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
dist=$root/dist
# Two of the agent's binaries must fit a Pi's small card beside each other, and a download over a slow line. x86_64 has no such
# card, and two megabytes more of OpenSSL's assembler.
limit_bytes=10000000
limited=aarch64-unknown-linux-musl

case ${1:-} in --help | -h) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(aarch64-unknown-linux-musl x86_64-unknown-linux-musl)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
version=$(sed -nE '/^\[workspace.package\]/,/^$/s/^version = "(.*)"$/\1/p' "$root/Cargo.toml")

mkdir -p "$dist"
rm -f "$dist/SHA256SUMS" "$dist"/edge-agent-*
summary=
for target in "${targets[@]}"; do
  binary=$("$here/build.sh" "$target" | tail -n 1)
  size=$(wc -c <"$binary")
  if [ "$target" = "$limited" ] && [ "$size" -ge "$limit_bytes" ]; then echo "release: $target: $size bytes, $limit_bytes are allowed" >&2; exit 1; fi
  name=edge-agent-$version-$target
  scratch=$(mktemp -d)
  folder=$scratch/$name
  "$here/lay.sh" "$binary" "$folder"
  "$here/sbom.py" "$target" >"$folder/edge-agent.cdx.json"
  cp "$folder/edge-agent.cdx.json" "$dist/$name.cdx.json"
  tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
    -C "$scratch" -cf - "$name" | gzip -n -9 >"$dist/$name.tar.gz"
  rm -rf "$scratch"
  summary="$summary; $target $size bytes, tarball $(wc -c <"$dist/$name.tar.gz")"
done
(cd "$dist" && sha256sum edge-agent-* >SHA256SUMS)
echo "release: edge-agent $version, ${#targets[@]} targets, $(wc -l <"$dist/SHA256SUMS") files with checksums in dist/$summary"
