#!/bin/sh
# flood.sh [LINES [WIDTH [hold]]]: numbered lines as fast as the pipe takes them; 0 lines: for ever; hold: stays afterwards
lines=${1:-100000} width=${2:-120}
line=$(head -c "$width" /dev/zero | tr '\0' x)
[ "$lines" != 0 ] || exec yes "$line"
yes "$line" | head -n "$lines" | awk '{ print NR, $0 }'
echo "flood done: $lines lines"
[ "$3" = hold ] || exit 0
trap 'exit 0' TERM
while :; do sleep 3600 & wait $!; done
