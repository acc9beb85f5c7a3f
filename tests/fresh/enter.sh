#!/bin/sh
# Runs a command in a root file system of its own, as a user of it. run.py starts this as the first process of new mount,
# process and host name namespaces, so that everything mounted and started here ends with it.
#
# usage: enter.sh ROOT RUST USER COMMAND      RUST is a toolchain's folder, seen at /opt/rust and read only
set -eu
root=$1 rust=$2 user=$3 command=$4
# Debian gives its users a PATH without the programs that mount.
PATH=$PATH:/usr/sbin:/sbin

# pivot_root wants a mount point.
mount --bind "$root" "$root"
cd "$root"
mkdir -p opt/rust
mount --bind -o ro "$rust" opt/rust
# Read only is what would otherwise change the machine outside: its kernel's settings, and the modes of its devices.
mount -t proc proc proc
mount --bind -o ro proc/sys proc/sys
mount --bind -o ro /sys sys
mount -t tmpfs -o mode=755 dev dev
for device in full null random tty urandom zero; do
  : >"dev/$device"
  mount --bind -o ro "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
cp -L /etc/resolv.conf etc/resolv.conf
hostname fresh

# Not chroot: a process in a chroot may not make user namespaces, which browsers and this very test do.
pivot_root . .
umount -l .
cd /

home=$(getent passwd "$user" | cut -d : -f 6)
path=/usr/local/bin:/usr/bin:/bin
[ "$user" != root ] || path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$home"
setpriv --reuid="$user" --regid="$user" --init-groups env USER="$user" HOME="$home" PATH="/opt/rust/bin:$path" sh -c "$command"
