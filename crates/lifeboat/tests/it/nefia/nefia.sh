#!/bin/sh
# What stands in for Nefia: prints its version, counts its reloads, and refuses
# one where a file `reload.fails` lies beside it.
dir=$(dirname "$0")
case $1 in
--version) echo "nefia version v$(cat "$dir/version") (linux/amd64)" ;;
reload)
    echo reload >> "$dir/reloads"
    if test -e "$dir/reload.fails"; then echo "no daemon answers" >&2; exit 1; fi
    ;;
*) exit 2 ;;
esac
