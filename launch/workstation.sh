#!/usr/bin/env bash
# One machine with one or more accelerators: all of them join one mesh, in one process.
#
#   launch/workstation.sh --config=configs/cosplace.py:city_large --workdir=runs/large
#
# Change: nothing; PYTHON=... names another Python than that of .venv.
#
# The run survives its terminal and, by restart.py, a crash. Its console goes to <workdir>/console.log. Started again
# with the same arguments it resumes. To stop it and keep everything: kill -TERM $(cat <workdir>/pid)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"

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
nohup "$PYTHON" launch/restart.py -- "$PYTHON" -m jaxvpr.main "$@" >>"$workdir/console.log" 2>&1 &
echo $! >"$workdir/pid"
sleep 5 # a mistake in the arguments shows within this time
if ! kill -0 $! 2>/dev/null; then
  status=0
  wait $! || status=$?
  tail -n 20 "$workdir/console.log" >&2
  exit "$status"
fi
echo "process $! runs; follow it with: tail -f $workdir/console.log"
