#!/bin/sh
# A run on this machine: launch/local.sh configs/quickstart.yaml [key=value ...]
# All accelerators train the student together (ZeRO 2); without any, each core runs a job.
set -eu
config=${1:?usage: launch/local.sh CONFIG [key=value ...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
if ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    set -- runtime.deepspeed="$here/zero2.json" "$@"
fi
exec w2s run "$config" "$@"
