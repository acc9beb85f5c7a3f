#!/bin/bash
# Users, topics and access lists of Redpanda, from topics.txt and access.txt beside it. Every step may be run again: what exists is
# brought to what is written here. It never deletes a topic and never lowers a partition count.
#
# Environment: BROKERS (the listener with TLS and passwords), ADMIN_HOSTS, and RPK_USER, RPK_PASS, RPK_SASL_MECHANISM of the
# superuser, RPK_TLS_ENABLED, RPK_TLS_CA as rpk reads them. Passwords of the agents are the files of /run/secrets/users.
set -euo pipefail
folder=$(dirname "$0")
brokers=(-X "brokers=$BROKERS")
admin=(-X "admin.hosts=$ADMIN_HOSTS")

rows() { sed -e '/^#/d' -e '/^[[:space:]]*$/d' "$folder/$1"; }

for file in /run/secrets/users/*; do
  user=${file##*/}
  # The password is read from a file and never stands in the log; rpk has no other way to take it.
  if rpk security user list "${admin[@]}" | grep -qx "$user"; then
    rpk security user update "$user" --new-password "$(<"$file")" --mechanism SCRAM-SHA-256 "${admin[@]}" >/dev/null
  else
    rpk security user create "$user" --password "$(<"$file")" --mechanism SCRAM-SHA-256 "${admin[@]}" >/dev/null
  fi
  echo "user $user"
done

while read -r topic partitions bytes; do
  settings=(message.timestamp.type=LogAppendTime retention.ms=2592000000 "retention.bytes=$bytes" cleanup.policy=delete write.caching=false)
  if rpk topic describe "$topic" "${brokers[@]}" >/dev/null 2>&1; then
    rpk topic alter-config "$topic" "${settings[@]/#/--set=}" "${brokers[@]}"
    have=$(rpk topic describe "$topic" --print-summary "${brokers[@]}" | awk '$1 == "PARTITIONS" {print $2}')
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
  rpk security acl create --allow-principal "User:$principal" --operation "$operations" "${target[@]}" "${brokers[@]}" >/dev/null
  echo "access $principal $resource $name $operations"
done < <(rows access.txt)
