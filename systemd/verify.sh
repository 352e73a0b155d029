#!/bin/sh
# verify.sh UNIT: systemd-analyze must have nothing to say about the unit. The programs that it starts need not be
# installed here, nor its user exist: they are replaced in a copy.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
copy="$directory/$(basename "$1")"
sed -e 's,^\(Exec[A-Za-z]*=\)[^ ]*,\1/bin/true,' -e 's,^User=.*,User=root,' "$1" >"$copy"
instance=$(printf '%s' "$copy" | sed 's/@\.service$/@test.service/')
[ "$copy" = "$instance" ] || ln -s "$copy" "$instance"
said=$(systemd-analyze verify --man=no "$instance" 2>&1) || { printf '%s\n' "$said"; exit 1; }
[ -z "$said" ] || { printf '%s\n' "$said"; exit 1; }
