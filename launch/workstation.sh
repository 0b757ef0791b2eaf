#!/usr/bin/env bash
# One machine with one or more accelerators: all of them join one mesh, in one process.
#
#   launch/workstation.sh --config=configs/cosplace.py:city_large --workdir=runs/large
#
# The run survives its terminal; its console goes to <workdir>/console.log. Started again with the same arguments it
# resumes. To stop it and keep everything: kill -TERM $(cat <workdir>/pid)
set -euo pipefail
cd "$(dirname "$0")/.."

workdir=""
for argument in "$@"; do
  case "$argument" in --workdir=*) workdir="${argument#--workdir=}" ;; esac
done
if [ -z "$workdir" ]; then
  echo "usage: $0 --config=FILE[:preset] --workdir=FOLDER [flags of jaxvpr.main]" >&2
  exit 2
fi
if [ -f "$workdir/pid" ] && kill -0 "$(cat "$workdir/pid")" 2>/dev/null; then
  echo "a run is going on in $workdir already, process $(cat "$workdir/pid")" >&2
  exit 2
fi
mkdir -p "$workdir"
nohup "${PYTHON:-python}" -m jaxvpr.main "$@" >>"$workdir/console.log" 2>&1 &
echo $! >"$workdir/pid"
echo "process $! runs; follow it with: tail -f $workdir/console.log"
