#!/usr/bin/env bash
# A TPU pod of Google Cloud: asks for it by a queued resource, installs this commit on its machines, and starts the run.
#
#   PROJECT=my-project ZONE=us-central2-b TYPE=v4-32 launch/tpu_pod.sh NAME --config=FILE --workdir=SHARED_FOLDER
#
# Change: RUNTIME, the image that fits the type; SETUP, a command by which every machine sees the workdir and the data,
# such as a mount of a bucket or of a file store; CREATE, further flags, such as --spot or --reserved.
#
# The run goes on without this terminal: each machine's restart.py starts its process again. After the pod itself was
# taken away (--spot), the same command asks for another one and resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 2 ]; then
  echo "usage: PROJECT=... ZONE=... TYPE=... $0 NAME --config=FILE --workdir=FOLDER [flags of jaxvpr.main]" >&2
  exit 2
fi
name="$1"
shift
where=(--project="${PROJECT:?the project}" --zone="${ZONE:?the zone}")
type="${TYPE:?the type of accelerator, such as v4-32}"
read -ra create <<<"${CREATE:-}"

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format="value(state.state)" 2>/dev/null || true
}

case "$(state)" in FAILED | SUSPENDED)
  gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  ;;
esac
if [ -z "$(state)" ]; then
  gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" --accelerator-type="$type" \
    --runtime-version="${RUNTIME:-tpu-ubuntu2204-base}" ${create[@]+"${create[@]}"}
fi
while now="$(state)" && [ "$now" != ACTIVE ]; do
  case "$now" in FAILED | SUSPENDED)
    echo "the queued resource $name is $now; the same command asks for it again" >&2
    exit 75
    ;;
  esac
  echo "waiting for the pod: ${now:-asked for}"
  sleep "${WAIT:-30}"
done

code="$(mktemp -d)"
trap 'rm -rf "$code"' EXIT
git archive --format=tar.gz --output="$code/jaxvpr.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$code/jaxvpr.tar.gz" "$name:" "${where[@]}" --worker=all
gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="
if [ -f jaxvpr/pid ] && kill -0 \$(cat jaxvpr/pid); then echo 'it runs already'; exit; fi
set -e
${SETUP:-true}
mkdir -p jaxvpr && tar -xzf jaxvpr.tar.gz -C jaxvpr && cd jaxvpr
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python=3.12
python3 -m uv pip install --quiet --editable '.[tpu]'
nohup .venv/bin/python launch/restart.py -- .venv/bin/python -m jaxvpr.main$(printf ' %q' "$@") --coordinator=auto \
  >>console.log 2>&1 </dev/null &
echo \$! >pid"
echo "it runs; see jaxvpr/console.log on each machine: gcloud compute tpus tpu-vm ssh $name ${where[*]} --worker=0"
