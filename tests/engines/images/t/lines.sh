#!/bin/sh
# Every awkward kind of output, in a fixed order; lines.sh [CODE]
echo "out 1"
echo "err 1" >&2
echo "out 2"
printf 'partial, no newline yet...'
sleep 0.3
printf ' and its end\n'
printf 'progress 10%%\rprogress 50%%\rprogress 100%%\n'
printf '\033[31mred\033[0m text\n'
printf 'bytes that are not UTF-8: \377\376\200 end\n'
printf 'a NUL here: \000 end\n'
printf '\n'
head -c 16384 /dev/zero | tr '\0' a
printf '|16384\n'
head -c 100000 /dev/zero | tr '\0' b
printf '|100000\n'
printf 'CRLF line\r\n'
echo "err 2" >&2
printf 'last line without newline'
exit "${1:-0}"
