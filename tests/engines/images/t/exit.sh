#!/bin/sh
# exit.sh CODE [AFTER]: ends with CODE after AFTER seconds
echo "will exit ${1:-1} in ${2:-0}s"
sleep "${2:-0}"
exit "${1:-1}"
