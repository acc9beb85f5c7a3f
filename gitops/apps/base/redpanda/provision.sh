#!/bin/bash
# Users, topics and access lists of Redpanda, from topics.txt and access.txt beside it. Every step may be run
# again: what exists is brought to what is written here. It never deletes a topic and never takes partitions away.
#
# Environment: BROKERS (the listener with TLS and passwords), ADMIN_HOSTS; RPK_USER, RPK_PASS and
# RPK_SASL_MECHANISM of the superuser, RPK_TLS_ENABLED and RPK_TLS_CA, as rpk reads them; USERS_DIR, a folder
# with one file a user, which holds the password, default /run/secrets/users.
set -euo pipefail
folder=$(dirname "$0")
brokers=(-X "brokers=$BROKERS")
admin=(-X "admin.hosts=$ADMIN_HOSTS")

rows() { sed -e '/^#/d' -e '/^[[:space:]]*$/d' "$folder/$1"; }
# Whether the first column of a table has a name. Read whole, because a reader that leaves early fails the pipe.
listed() { awk -v name="$2" '$1 == name {found = 1} END {exit !found}' <<<"$1"; }

users=$(rpk security user list "${admin[@]}")
for file in "${USERS_DIR:-/run/secrets/users}"/*; do
  user=${file##*/}
  # rpk takes a password only as an argument; nobody else sees the processes of this pod.
  if listed "$users" "$user"; then
    rpk security user update "$user" --new-password "$(<"$file")" --mechanism SCRAM-SHA-256 "${admin[@]}" >/dev/null
  else
    rpk security user create "$user" --password "$(<"$file")" --mechanism SCRAM-SHA-256 "${admin[@]}" >/dev/null
  fi
  echo "user $user"
done

topics=$(rpk topic list "${brokers[@]}")
while read -r topic partitions bytes; do
  # A reading's own time is in its JSON; an acknowledged record is fsynced.
  settings=(
    message.timestamp.type=LogAppendTime
    retention.ms=2592000000
    "retention.bytes=$bytes"
    cleanup.policy=delete
    write.caching=false
  )
  if listed "$topics" "$topic"; then
    rpk topic alter-config "$topic" "${settings[@]/#/--set=}" "${brokers[@]}"
    have=$(awk -v name="$topic" '$1 == name {print $2}' <<<"$topics")
    if [ "$have" -lt "$partitions" ]; then
      rpk topic add-partitions "$topic" --num $((partitions - have)) "${brokers[@]}"
    fi
  else
    rpk topic create "$topic" --partitions "$partitions" --replicas 1 "${settings[@]/#/--topic-config=}" "${brokers[@]}"
  fi
done < <(rows topics.txt)

while read -r principal resource name operations; do
  target=(--"$resource")
  [ "$resource" = cluster ] || target+=("$name")
  rpk security acl create --allow-principal "User:$principal" --operation "$operations" "${target[@]}" \
    "${brokers[@]}" >/dev/null
  echo "access $principal $resource $name $operations"
done < <(rows access.txt)
