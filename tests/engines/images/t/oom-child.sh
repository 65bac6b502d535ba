#!/bin/sh
# oom-child.sh [MIB]: a child touches MIB of memory and is killed for it; the leader lives on
trap 'echo bye; exit 0' TERM
dd if=/dev/zero of=/dev/null bs="${1:-512}M" count=1
echo "child ended: $?"
while :; do sleep 3600 & wait $!; done
