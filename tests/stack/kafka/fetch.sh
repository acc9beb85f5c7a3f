#!/usr/bin/env bash
# Fetches the pinned Apache Kafka into a cache that outlives `cargo clean` and is shared by all clones, and prints its
# folder. Nothing is downloaded when it is already there. Two callers at once are harmless: the folder appears by rename.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
speaker=setup
# shellcheck source=tests/stack/install.sh
source "$here/../install.sh"
version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/pom.xml")
pom=$(cksum <"$here/pom.xml" | cut -d ' ' -f 1)
jars=${XDG_CACHE_HOME:-$HOME/.cache}/homelab-k12n/kafka-$version-$pom

if [ ! -d "$jars" ]; then
  have mvn || fail "Maven is missing, and Kafka's jars come through it: run make setup"
  mkdir -p "$(dirname "$jars")"
  partial=$(mktemp -d "$jars.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  say "installing Apache Kafka $version (Maven, 45 MB, once)"
  quietly mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$partial"
  chmod 755 "$partial"
  # A second caller may have been quicker; its folder is as good as ours.
  mv -T "$partial" "$jars" 2>/dev/null || [ -d "$jars" ]
fi
echo "$jars"
