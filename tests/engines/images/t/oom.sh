#!/bin/sh
# oom.sh [MIB [AFTER]]: the leader itself touches MIB of memory at once
sleep "${2:-0}"
echo "eating ${1:-512} MiB"
exec dd if=/dev/zero of=/dev/null bs="${1:-512}M" count=1
