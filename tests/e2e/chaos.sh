#!/bin/bash
# Half a minute of accidents (tests/chaos/run.sh); make chaos HOURS=1 has more of them, and other ones.
set -u
faults=$BUILD_DIR/faults.so
# A sanitizer's library must be the first that is loaded.
if [ ! -e "$faults" ] || ldd "$TRAIN_GPT" | grep -q 'lib[at]san'; then faults=; fi
FAULTS=$faults exec tests/chaos/run.sh "${CHAOS_SECONDS:-30}" "${CHAOS_SEED:-1}"
