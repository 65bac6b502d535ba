#!/bin/sh
# A child, a grandchild, an orphan in a session of its own that ignores TERM, and a double fork
trap 'echo top got TERM; exit 0' TERM
sh -c 'sleep 3601 & wait' &
setsid sh -c 'trap "" TERM HUP; sleep 3602 & while :; do sleep 3603; done' &
( ( setsid sleep 3604 & ) & )
echo "tree up"
while :; do sleep 3600 & wait $!; done
